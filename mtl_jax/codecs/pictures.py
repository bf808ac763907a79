"""Images as files: PNG and JPEG bytes to arrays and back, with errors that say what is wrong with the bytes."""

import zlib

import cv2
import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
_GREY_STEPS = {1: 255, 2: 85, 4: 17}  # {bits: ...}
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # labels do not follow the camera's orientation tag
# Label maps have large regions of one value. Without PNG's filters they become a third in size, and are decoded in a
# fifth of the time, which training spends for every map of every sample.
_FOR_LABELS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 9)


def decode(data: bytes, channels: int) -> np.ndarray:
    """JPEG or PNG bytes to `[H, W, channels]`, RGB for three channels; for one, a palette PNG gives its indices.

    Raises:
        ValueError: not a whole JPEG or PNG, or another number of channels.
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
    """Whether the bytes are a PNG of indices into a palette."""
    return data[:8] == PNG and data[25:26] == b"\x03"


def grey_step(data: bytes) -> int:
    """By how much neighbouring values of a PNG differ when decoded: those of fewer than 8 bits are stretched to 255."""
    return _GREY_STEPS.get(data[24], 1) if data[:8] == PNG and len(data) > 24 else 1


def decode_values(data: bytes) -> np.ndarray:
    """The values of a picture with one channel; of one with a palette the indices."""
    value = decode(data, 1)
    return value if has_palette(data) else value // grey_step(data)


def encode_png(x: np.ndarray) -> bytes:
    """An array [H, W], [H, W, 1] or [H, W, 3] (RGB) as PNG bytes."""
    if x.ndim == 3 and x.shape[2] == 3:
        return cv2.imencode(".png", x[..., ::-1])[1].tobytes()
    return cv2.imencode(".png", x, _FOR_LABELS)[1].tobytes()


def _truncated(data: bytes) -> str:
    """Why a JPEG or PNG is incomplete, or "": OpenCV fills what is missing with grey and only writes to stderr."""
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        return f"the JPEG ends early ({len(data)} bytes)"
    if data[:8] == PNG and b"IEND" not in data[-64:]:
        return f"the PNG ends early ({len(data)} bytes)"
    return ""


def _without_palette(png: bytes) -> bytes:
    """A palette PNG as the grey PNG of its indices: OpenCV would deliver the palette's colours."""
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
