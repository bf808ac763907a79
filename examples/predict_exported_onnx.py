"""Predicts on a photo with a model in ONNX: python examples/predict_exported_onnx.py MODEL.onnx PHOTO.jpg OUT.png

Needs onnxruntime, numpy and pillow. OUT.png shows the photo and the prediction of every task beside it.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont, ImageOps

model, photo, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
description = json.loads(session.get_modelmeta().custom_metadata_map["description"])
_, height, width, _ = description["input"]["shape"]
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
arrays = session.run(None, {"images": small[None]})  # bytes in, maps of that size out
maps = dict(zip(description["outputs"], arrays, strict=True))

panels = {"photo": image}
for task, output in description["outputs"].items():
    mode = Image.Resampling.NEAREST if output["resize"] == "nearest" else Image.Resampling.BILINEAR
    channels = np.moveaxis(np.atleast_3d(maps[task][0]), 2, 0)
    values = np.dstack([Image.fromarray(channel).resize(image.size, mode) for channel in channels])
    low, high = output["range"] or (values.min(), values.max())
    grey = np.repeat(255 * (values - low) / max(high - low, 1e-9), 3 // values.shape[2], axis=2).clip(0, 255)
    pixels = np.array(output["class_colors"])[values[..., 0]] if "classes" in output else grey
    title = f"{task}: {output['meaning']}" + ("" if output["range"] else f", {low:.1f} (black) to {high:.1f} (white)")
    panels[title] = Image.fromarray(pixels.astype(np.uint8))
sheet = Image.new("RGB", (image.width * len(panels), image.height + 30))
for i, (title, panel) in enumerate(panels.items()):
    sheet.paste(panel, (i * image.width, 30))
    ImageDraw.Draw(sheet).text((i * image.width + 6, 6), title, font=ImageFont.load_default(16))
sheet.save(out)
