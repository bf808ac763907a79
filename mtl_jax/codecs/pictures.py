"""Encoding and decoding of PNG and JPEG images, with errors that say what is wrong with the bytes."""

import io
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, TiffImagePlugin

logger = logging.getLogger(__name__)

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
_TIFF = (b"II*\x00", b"MM\x00*")
# Markers of JPEG (ISO/IEC 10918-1, table B.1). FF 00 is the byte FF of the image data, and FF before a marker fills up.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # restart markers are part of the image data
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# What simplejpeg refuses or libjpeg warns of although every pixel is as stored.
_NO_DAMAGE = (
    "Warning: unknown JFIF revision",
    "Unknown Adobe color transform",
    "Invalid SOS parameters for sequential JPEG",
    "Unsupported color conversion",
    "Could not determine subsampling",
)
_RGB_PNG = b"\x08\x02"  # bits and type of colour in the header of a PNG: 8 bits of red, green and blue
_ALPHA = (4, 6)  # types of colour in the header of a PNG: grey and RGB with transparency
_FULL = 65535
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # tags of TIFF 6.0
_DIM = 1 << 14  # a picture of 16 bits without a value this high has at most a quarter of the brightness it can have
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
    _check_complete(data)
    palette = channels == 1 and has_palette(data)
    if palette:
        data = _without_palette(data)
    image = _decoded(data, _RGB if channels == 3 else cv2.IMREAD_UNCHANGED)
    if channels == 3:
        return image
    if image.ndim != 2:
        raise ValueError(f"it has {image.shape[2]} channels, expected {channels}")
    return (image // grey_step(data) if palette else image)[..., None]


def photograph(data: bytes) -> np.ndarray:
    """Decodes an image in colour as it looks, from any tool.

    It differs from `decode` with three channels for images of 16 bits, of which `decode` takes the upper 8: where fewer
    bits are declared (sBIT of a PNG, MaxSampleValue of a TIFF) and the values fill the lower bits, it scales them to
    0..255. A note (see `collect_notes`) tells of images that become dark for want of such a declaration, and of
    transparency, which is dropped.

    Returns:
        The image `[H, W, 3]`, RGB, uint8, as its pixels lie in the file.

    Raises:
        ValueError: The bytes are no complete image.
    """
    _check_complete(data)
    tiff = data.startswith(_TIFF)
    image = _decoded(data, _RGB | cv2.IMREAD_ANYDEPTH if tiff or _png_bits(data) == 16 else _RGB)
    if image.dtype == np.uint16:
        image = _eight_bits(image, _declared_highest(data), scaled=not tiff)
    elif image.dtype != np.uint8:
        image = _decoded(data, _RGB)
    if _transparent(data):
        note("the image has transparent pixels; their transparency is dropped, and the colours below it are used")
    return image


def is_rgb(data: bytes) -> bool:
    """Returns True if every decoder makes three channels of 8 bits of a JPEG or PNG."""
    if data.startswith(PNG):
        return data[24:26] == _RGB_PNG and _content(data, b"tRNS") is None
    frames = (start for marker, start in _segments(data) if marker in _START_OF_FRAME)
    frame = next(frames, len(data))  # length (2 bytes), bits (1), height (2), width (2), number of channels (1)
    return data.startswith(JPEG) and data[frame + 2 : frame + 3] == b"\x08" and data[frame + 7 : frame + 8] == b"\x03"


def size(data: bytes) -> tuple[int, int]:
    """Returns (height, width) of a JPEG or PNG as its header says, without decoding the pixels.

    Raises:
        ValueError: The bytes have no such header.
    """
    if data.startswith(PNG):
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))  # in the first chunk
    else:
        segments = _segments(data) if data.startswith(JPEG) else ()
        frames = (start for marker, start in segments if marker in _START_OF_FRAME)
        frame = next(frames, len(data)) + 3  # behind its length (2 bytes) and the bits (1): height, width
        height, width = (int.from_bytes(data[frame + i : frame + i + 2], "big") for i in (0, 2))
    if not height or not width:
        raise ValueError(f"it is no JPEG or PNG with a size (first bytes {data[:8]!r}, {len(data)} bytes)")
    return height, width


def damage(data: bytes) -> str:
    """Returns what is wrong with the bytes of a JPEG or PNG that decodes, or "" if nothing is known to be wrong.

    Decoders go on with damaged data of a JPEG and make up pixels; OpenCV says so on stderr only. This check decodes a
    JPEG once more, by an eighth of the size. It finds what libjpeg warns of. Most changes of a single bit leave the
    data valid, and nothing finds those: of 360 such changes in real photographs, 312 were of this kind. Of 360 blocks
    of 512 bytes that were overwritten by zeros, 16 were.
    """
    if data.startswith(PNG):
        return _wrong_checksum(data)
    if not data.startswith(JPEG):
        return ""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1)
    except ValueError as error:
        if not any(text in str(error) for text in _NO_DAMAGE):
            return f"the JPEG is damaged, and a part of its pixels is made up ({error})"
    return ""


_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Tells whoever collects notes, else the log, of a property of an image that is no error."""
    notes = _notes.get()
    if notes is None:
        logger.warning(text)
    else:
        notes.append(text)


@contextmanager
def collect_notes() -> Iterator[list[str]]:
    """Collects the notes on the images that are read inside of the `with` block, in the list that it returns."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


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
    """Encodes an array `[H, W]`, `[H, W, 1]` or `[H, W, 3]` (RGB) of uint8 or uint16 as PNG."""
    if x.ndim == 3 and x.shape[2] == 3:
        return cv2.imencode(".png", x[..., ::-1])[1].tobytes()
    return cv2.imencode(".png", x, _FOR_LABELS)[1].tobytes()


def as_rgb(data: bytes, image: np.ndarray) -> bytes:
    """Returns bytes that every decoder turns into an RGB image: the file's own bytes, or a PNG if they are others.

    Args:
        data: Content of a JPEG or PNG.
        image: The image `[H, W, 3]` that it stands for.
    """
    return data if is_rgb(data) else encode_png(image)


def _decoded(data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it: {error}") from error
    if image is None:
        reason = _wrong_checksum(data) if data.startswith(PNG) else ""
        raise ValueError(
            reason or f"it is no image that OpenCV can decode (first bytes {data[:8]!r}, {len(data)} bytes)"
        )
    return image


def _check_complete(data: bytes) -> None:
    """Checks that nothing is missing at the end of a JPEG or PNG; bytes may follow the image, as in motion photos.

    OpenCV fills the missing part with grey, and reports it on stderr only.

    Raises:
        ValueError: The data end early.
    """
    if not data:
        raise ValueError("it is empty")
    if data.startswith(JPEG):
        markers = [marker for marker, _ in _segments(data)]
        if _START_OF_SCAN not in markers or markers[-1] != _END_OF_IMAGE:
            raise ValueError(f"the JPEG ends early ({len(data)} bytes)")
    if data.startswith(PNG) and _content(data, b"IEND") is None:
        raise ValueError(_wrong_checksum(data) or f"the PNG ends early ({len(data)} bytes)")


def _segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Yields (marker, position behind it) of the segments of a JPEG in order, up to its end.

    Segments are passed over by their length, so the thumbnail in one of them is none of the image's own markers.
    """
    after = _MARKER.search(jpeg, len(JPEG))
    while after:
        marker, position = jpeg[after.end() - 1], after.end()
        yield marker, position
        if marker == _END_OF_IMAGE:
            return
        if marker not in _ALONE:
            position += int.from_bytes(jpeg[position : position + 2], "big")
        after = (_AFTER_SCAN if marker == _START_OF_SCAN else _MARKER).search(jpeg, position)


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start, end) of the chunks of a PNG in order, up to its end; a chunk that is cut ends them."""
    start, kind = len(PNG), b""
    while kind != b"IEND" and start + 12 <= len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")  # length, kind, content, checksum
        if end > len(png):
            return
        kind = png[start + 4 : start + 8]
        yield kind, start, end
        start = end


def _content(png: bytes, kind: bytes) -> bytes | None:
    """Returns the content of the first chunk of a kind, None if the PNG has no whole one."""
    return next((png[start + 8 : end - 4] for other, start, end in _chunks(png) if other == kind), None)


def _wrong_checksum(png: bytes) -> str:
    """Returns which chunk of a PNG has a wrong checksum, or ""; chunks that decoders need not know do not count."""
    view = memoryview(png)
    for kind, start, end in _chunks(png):
        if kind[:1].isupper() and zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(png[end - 4 : end], "big"):
            return f"the PNG is damaged: the checksum of its chunk {kind.decode('latin-1')!r} at byte {start} is wrong"
    return ""


def _png_bits(data: bytes) -> int:
    """Returns the bits of a value in a PNG, 0 for other files."""
    return data[24] if data.startswith(PNG) and len(data) > 24 else 0


def _declared_highest(data: bytes) -> int | None:
    """Returns the highest value of an image of 16 bits by what its file declares, None if it declares nothing."""
    if data.startswith(PNG):
        colours = (_content(data, b"sBIT") or b"")[: 1 if data[25] in (0, 4) else 3]  # bits of alpha follow
        return (1 << min(max(colours), 16)) - 1 if any(colours) else None
    try:
        file = io.BytesIO(data)
        directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        bits = max(directory.get(_BITS_PER_SAMPLE, (16,)))
        highest = max(directory.get(_MAX_SAMPLE_VALUE, (0,)))
    except Exception:  # the type of Pillow's exception depends on the damage; OpenCV has decoded the image
        return None
    if bits < 16:
        return _FULL  # OpenCV has scaled the values
    # TIFF 6.0 has the highest value that occurs there, too, which says nothing of the bits.
    return highest if highest and not highest & (highest + 1) else None


def _eight_bits(image: np.ndarray, declared: int | None, *, scaled: bool) -> np.ndarray:
    """Returns an image of 16 bits, `[H, W, 3]`, in 8 bits.

    Args:
        image: The image.
        declared: Its highest possible value, see `_declared_highest`.
        scaled: True if the format demands that values of fewer bits fill the upper bits, as PNG does. Values that fill
            the lower ones all the same are told by what they leave below.
    """
    highest = int(image.max())
    if declared is not None and highest <= declared < _FULL:
        step = (_FULL + 1) // (declared + 1)
        if not scaled or (image % step).any():
            return np.rint(image * (255 / declared)).astype(np.uint8)
    if declared is None and 0 < highest < _DIM:
        bits = highest.bit_length()
        note(
            f"the image has values of 16 bits, but none above {(1 << bits) - 1} ({bits} bits). It is dark, because the "
            "upper 8 of 16 bits are used. If its values have fewer bits, declare them (chunk sBIT of a PNG, "
            "MaxSampleValue of a TIFF), or save the image in 8 bits"
        )
    return (image >> 8).astype(np.uint8)


def _transparent(data: bytes) -> bool:
    """Returns True if an image is not opaque everywhere."""
    if data.startswith(JPEG):
        return False
    if data.startswith(PNG) and data[25] not in _ALPHA:
        content = _content(data, b"tRNS")
        if not content:
            return False
        if has_palette(data):  # opacity of each entry
            opacity = np.full(256, 255, np.uint8)
            opacity[: len(content)] = np.frombuffer(content[:256], np.uint8)
            return bool((opacity[decode_values(data)] < 255).any())
        if data[25] == 0:  # the grey level that is transparent
            return bool((decode_values(data) == int.from_bytes(content, "big")).any())
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype.kind != "u":
        return False
    return bool(np.any(image[..., 3] != (255 if image.dtype == np.uint8 else _FULL)))


def _without_palette(png: bytes) -> bytes:
    """Converts a PNG with a palette to a grey PNG of its indices, because OpenCV would decode the palette's colours."""
    out = [PNG]
    for kind, start, end in _chunks(png):
        if kind == b"IHDR":
            content = png[start + 8 : end - 4]
            chunk = kind + content[:9] + b"\x00" + content[10:]
            out.append(png[start : start + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big"))
        elif kind not in (b"PLTE", b"tRNS"):
            out.append(png[start:end])
    return b"".join(out)
