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

# The picture: the photo, and beside it each prediction at the photo's size, with a title above and a legend below.
line, font = 30, ImageFont.load_default(16)
sheet = Image.new("RGB", (image.width * (1 + len(maps)), image.height + 2 * line))
draw = ImageDraw.Draw(sheet)
draw.text((6, 6), "photo", font=font)
sheet.paste(image, (0, line))
for i, (task, output) in enumerate(description["outputs"].items(), 1):
    left = i * image.width
    mode = Image.Resampling.NEAREST if output["resize"] == "nearest" else Image.Resampling.BILINEAR
    channels = np.moveaxis(np.atleast_3d(maps[task][0]), 2, 0)
    values = np.dstack([Image.fromarray(channel).resize(image.size, mode) for channel in channels])
    if "classes" in output:
        pixels = np.array(output["class_colors"], np.uint8)[values[..., 0]]
        present = np.argsort(-np.bincount(values.ravel()))[: len(np.unique(values))]  # the most frequent class first
        legend = [((output["class_names"] or range(256))[j], tuple(output["class_colors"][j])) for j in present]
    else:
        low, high = output["range"] or (values.min(), values.max())
        grey = np.clip(255 * (values - low) / max(high - low, 1e-9), 0, 255).astype(np.uint8)
        pixels = np.repeat(grey, 3 // grey.shape[2], axis=2)
        legend = [(f"{low:.3g} {output['unit']}", (0, 0, 0)), (f"{high:.3g} {output['unit']}", (255, 255, 255))]
    title = "class of each pixel" if "classes" in output else output["meaning"]
    draw.text((left + 6, 6), f"{task}: {title}", font=font)
    sheet.paste(Image.fromarray(pixels), (left, line))
    for text, color in legend:
        if left + 40 + draw.textlength(str(text), font) < (i + 1) * image.width:
            draw.rectangle((left + 6, image.height + line + 6, left + 22, image.height + line + 22), color, "white")
            draw.text((left + 28, image.height + line + 5), str(text), font=font)
            left += 40 + int(draw.textlength(str(text), font))
sheet.save(out)
