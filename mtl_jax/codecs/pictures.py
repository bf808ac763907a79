"""Encoding and decoding of PNG and JPEG images, with errors that say what is wrong with the bytes."""

import io
import zlib

import cv2
import numpy as np
from PIL import ExifTags, Image

PNG = b"\x89PNG\r\n\x1a\n"
_GREY_STEPS = {1: 255, 2: 85, 4: 17}  # {bits of a PNG: step between decoded values}
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # labels do not follow the camera's orientation tag
_AS_STORED = 1  # orientation of an image whose pixels lie as they are to be seen
# Label maps have large regions of one value. Without the filters of PNG their files have a third of the size, and
# decoding takes a fifth of the time. Training decodes every label map of every sample.
_FOR_LABELS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 9)


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes a JPEG or PNG.

    Args:
        data: Content of the file.
        channels: Number of channels, 1 or 3.

    Returns:
        The image `[H, W, channels]`, RGB for three channels. A PNG with a palette gives its indices for one channel.

    Raises:
        ValueError: the bytes are no complete JPEG or PNG, or the image has another number of channels.
    """
    if not data:
        raise ValueError("it is empty")
    if reason := _truncated(data):
        raise ValueError(reason)
    palette = channels == 1 and has_palette(data)
    if palette:
        data = _without_palette(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB if channels == 3 else cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it: {error}") from error
    if image is None:
        raise ValueError(f"it is no image that OpenCV can decode (first bytes {data[:8]!r}, {len(data)} bytes)")
    if channels == 3:
        return image
    if image.ndim != 2:
        raise ValueError(f"it has {image.shape[2]} channels, expected {channels}")
    return (image // grey_step(data) if palette else image)[..., None]


def has_palette(data: bytes) -> bool:
    """Returns True if the bytes are a PNG with a palette."""
    return data[:8] == PNG and data[25:26] == b"\x03"


def grey_step(data: bytes) -> int:
    """Returns the step between neighbouring values of a decoded image.

    It is above 1 for a PNG of less than 8 bits, because OpenCV stretches the values of such a PNG to 0..255.
    """
    return _GREY_STEPS.get(data[24], 1) if data[:8] == PNG and len(data) > 24 else 1


def decode_values(data: bytes) -> np.ndarray:
    """Decodes an image of one channel, `[H, W, 1]`, to the stored values; a PNG with a palette gives its indices."""
    value = decode(data, 1)
    return value if has_palette(data) else value // grey_step(data)


def orientation(data: bytes) -> int:
    """Returns the orientation of an image by its EXIF data, 1 to 8; 1 where it has none or an unknown one.

    Cameras store the pixels as the sensor reads them, and viewers turn them by this number. `upright` does so, too.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            value = image.getexif().get(ExifTags.Base.Orientation, _AS_STORED)
    except Exception:  # the type of Pillow's exception depends on the damage, which `decode` reports
        return _AS_STORED
    return value if value in _UPRIGHT else _AS_STORED


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image `[H, W, C]` as viewers show it.

    Args:
        image: The image as it is stored.
        orientation: Result of `orientation` for its file.
    """
    return np.ascontiguousarray(_UPRIGHT[orientation](image))


# EXIF 2.32, section 4.6.4, tag 0x0112
_UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 1)[:, ::-1],
    8: lambda image: np.rot90(image, 1),
}


def encode_png(x: np.ndarray) -> bytes:
    """Encodes an array `[H, W]`, `[H, W, 1]` or `[H, W, 3]` (RGB) as PNG."""
    if x.ndim == 3 and x.shape[2] == 3:
        return cv2.imencode(".png", x[..., ::-1])[1].tobytes()
    return cv2.imencode(".png", x, _FOR_LABELS)[1].tobytes()


def _truncated(data: bytes) -> str:
    """Returns the reason why a JPEG or PNG is incomplete, or "" if it is complete.

    OpenCV fills the missing part with grey, and reports it on stderr only.
    """
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        return f"the JPEG ends early ({len(data)} bytes)"
    if data[:8] == PNG and b"IEND" not in data[-64:]:
        return f"the PNG ends early ({len(data)} bytes)"
    return ""


def _without_palette(png: bytes) -> bytes:
    """Converts a PNG with a palette to a grey PNG of its indices, because OpenCV would decode the palette's colours."""
    out, start = [PNG], len(PNG)
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")  # length, kind, content, checksum
        kind, content = png[start + 4 : start + 8], png[start + 8 : end - 4]
        if kind == b"IHDR":
            chunk = kind + content[:9] + b"\x00" + content[10:]
            out.append(png[start : start + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big"))
        elif kind not in (b"PLTE", b"tRNS"):
            out.append(png[start:end])
        start = end
    return b"".join(out)
