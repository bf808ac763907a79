"""Images with something behind their end, images with damage, and images of other channels and bits."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from mtl_jax.codecs import pictures
from mtl_jax.labels import readers

H, W = 48, 64
MOVIE = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 8  # what motion photos have behind the image


def picture(seed=0):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (W, H)) ^ rng.integers(0, 8, (H, W, 3), np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(seed=0, **options):
    return saved(Image.fromarray(picture(seed)), "jpeg", quality=90, **options)


def with_thumbnail():
    """A JPEG whose EXIF data hold another, complete JPEG."""
    thumbnail, data = jpeg(1), jpeg()
    segment = b"Exif\x00\x00" + thumbnail
    return data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


def filled():
    """A JPEG with fill bytes before each marker outside of the image data."""
    data = jpeg()
    return data[:2] + b"\xff\xff" + data[2:-2] + b"\xff\xff" + data[-2:]


JPEGS = {
    "baseline": jpeg,
    "progressive": lambda: jpeg(progressive=True),
    "restart markers": lambda: jpeg(restart_marker_blocks=2),
    "progressive, restart markers": lambda: jpeg(progressive=True, restart_marker_blocks=2),
    "grey": lambda: saved(Image.fromarray(picture()).convert("L"), "jpeg", quality=90),
    "thumbnail": with_thumbnail,
    "fill bytes": filled,
}


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def chunks(data):
    """The positions (start, end, kind) of the chunks of a PNG."""
    start, result = 8, []
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        result.append((start, end, data[start + 4 : start + 8]))
        start = end
    return result


def inserted(png, kind, content):
    """A PNG with a chunk behind its header."""
    return png[:33] + chunk(kind, content) + png[33:]


@pytest.mark.parametrize("kind", JPEGS)
def test_bytes_behind_a_jpeg(kind):
    data = JPEGS[kind]()
    want = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    for behind in (b"", MOVIE, b"\xff\xda\x00\x08", b"\x00" * 100):
        np.testing.assert_array_equal(pictures.decode(data + behind, 3), want)
        assert pictures.damage(data + behind) == ""


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_ends_early(kind):
    data = JPEGS[kind]()
    for end in (len(data) - 1, len(data) - 2, len(data) // 2, 600, 20, 3):
        with pytest.raises(ValueError, match=rf"the JPEG ends early \({end} bytes\)"):
            pictures.decode(data[:end], 3)


def test_the_end_of_a_thumbnail_is_not_the_end():
    data = with_thumbnail()
    end = data.index(b"\xff\xd9") + 2
    for cut in (end, end + 300, data.rindex(b"\xff\xda") + 100):
        with pytest.raises(ValueError, match="the JPEG ends early"):
            pictures.decode(data[:cut], 3)


def test_a_scan_that_lacks_of_a_progressive_jpeg():
    data = jpeg(progressive=True)
    assert data.count(b"\xff\xda") > 3
    with pytest.raises(ValueError, match="the JPEG ends early"):
        pictures.decode(data[: data.rindex(b"\xff\xda")], 3)


def test_bytes_behind_a_png():
    data = pictures.encode_png(picture())
    np.testing.assert_array_equal(pictures.decode(data + MOVIE, 3), picture())
    assert pictures.damage(data + MOVIE) == ""
    palette = saved(Image.fromarray(picture()).quantize(9), "png")
    np.testing.assert_array_equal(pictures.decode(palette + MOVIE, 1), pictures.decode(palette, 1))


def test_a_png_that_ends_early():
    data = pictures.encode_png(picture())
    end = len(data) - 12
    for cut in (data[:end], data[: end + 11], data[: end // 2], data[: end // 2] + b"IEND" + bytes(20), data[:8]):
        with pytest.raises(ValueError, match="the PNG ends early"):
            pictures.decode(cut, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_wrong_checksums_are_named(channels):
    data = pictures.encode_png(picture()[..., :channels])
    position = data.index(b"IDAT")
    changed = bytearray(data)
    changed[position + 40] ^= 1
    with pytest.raises(ValueError, match=rf"checksum of its chunk 'IDAT' at byte {position - 4} is wrong"):
        pictures.decode(bytes(changed), channels)
    assert "chunk 'IEND'" in pictures.damage(data[:-1] + b"x")  # decoders stop before it
    assert pictures.damage(inserted(data, b"tEXt", b"a\x00b")[:-1] + data[-1:]) == ""
    text = bytearray(inserted(data, b"tEXt", b"a\x00b"))
    text[33 + 8] ^= 1  # nobody needs the text
    assert pictures.damage(bytes(text)) == ""


@pytest.mark.parametrize("kind", JPEGS)
def test_damage_that_decoders_repair(kind):
    """A part of the image data is lost, and the end is there."""
    data = JPEGS[kind]()
    start = data.rindex(b"\xff\xda") + 20
    third = (len(data) - start) // 3
    cut = data[: start + third] + data[start + 2 * third :]
    assert pictures.decode(cut, 3).shape == (H, W, 3)
    assert pictures.damage(data) == ""
    assert "the JPEG is damaged, and a part of its pixels is made up (" in pictures.damage(cut)
    with pytest.raises(ValueError, match=r"the JPEG is damaged.*Replace the file; if the image looks right, save it"):
        readers.photograph("")(cut)
    with pictures.collect_notes() as notes:
        readers.encoded(3)(cut)
    assert notes == [pictures.damage(cut)]


def test_changes_of_one_bit():
    """Some are found. The others leave valid data, so that libjpeg decodes them without a warning."""
    data = jpeg(progressive=True)
    start = data.index(b"\xff\xda") + 20
    rng = np.random.default_rng(0)
    reported = 0
    for position in rng.integers(start, len(data) - 2, 60):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.integers(8)
        try:
            pictures.decode(bytes(changed), 3)
        except ValueError:
            reported += 1
        else:
            reported += bool(pictures.damage(bytes(changed)))
    assert 20 < reported < 60


def test_what_is_no_damage():
    data = jpeg()
    later = data.replace(b"JFIF\x00\x01", b"JFIF\x00\x03", 1)  # a major version that does not exist yet
    assert later != data
    for other in (later, saved(Image.fromarray(picture()).convert("CMYK"), "jpeg"), jpeg(keep_rgb=True), b"BM"):
        assert pictures.damage(other) == ""
    for sampling in (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    ):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        assert pictures.damage(cv2.imencode(".jpg", picture(), options)[1].tobytes()) == ""


def transparent(mode="RGBA", opacity=100):
    image = Image.fromarray(picture())
    image.putalpha(opacity)
    return image.convert(mode)


DROPPED = "transparent pixels; their transparency is dropped"
FORMS = {  # form of a file -> (its bytes, whether they are stored as they are, part of the note)
    "png": (lambda: pictures.encode_png(picture()), True, ""),
    "jpeg": (jpeg, True, ""),
    "progressive jpeg": (lambda: jpeg(progressive=True), True, ""),
    "rgb jpeg": (lambda: jpeg(keep_rgb=True), True, ""),
    "motion photo": (lambda: jpeg() + MOVIE, True, ""),
    "grey jpeg": (JPEGS["grey"], False, ""),
    "cmyk jpeg": (lambda: saved(Image.fromarray(picture()).convert("CMYK"), "jpeg"), False, ""),
    "grey png": (lambda: pictures.encode_png(picture()[..., :1]), False, ""),
    "1 bit": (lambda: saved(Image.fromarray(picture()).convert("1"), "png"), False, ""),
    "palette": (lambda: saved(Image.fromarray(picture()).quantize(9), "png"), False, ""),
    "transparent palette": (
        lambda: saved(Image.fromarray(picture()).quantize(9), "png", transparency=3),
        False,
        DROPPED,
    ),
    "palette with an unused entry": (
        lambda: saved(Image.fromarray(picture()).quantize(9), "png", transparency=200),
        False,
        "",
    ),
    "opaque rgba": (lambda: saved(transparent(opacity=255), "png"), False, ""),
    "rgba": (lambda: saved(transparent(), "png"), False, DROPPED),
    "grey with alpha": (lambda: saved(transparent("LA"), "png"), False, DROPPED),
    "one transparent colour": (
        lambda: saved(Image.fromarray(picture()), "png", transparency=tuple(map(int, picture()[3, 3]))),
        False,
        DROPPED,
    ),
    "one transparent grey": (
        lambda: inserted(pictures.encode_png(picture()[..., :1]), b"tRNS", bytes([0, picture()[3, 3, 0]])),
        False,
        DROPPED,
    ),
    "16 bits": (lambda: pictures.encode_png(picture().astype(np.uint16) * 257), False, ""),
    "16 bits grey": (lambda: pictures.encode_png(picture()[..., :1].astype(np.uint16) * 257), False, ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_decoder_returns_three_channels(form):
    make, kept, text = FORMS[form]
    data = make()
    with pictures.collect_notes() as notes:
        stored, size = readers.photograph("")(data)
    assert size == (H, W)
    assert (stored == data) == kept
    assert stored == readers.encoded(3)(data)[0]
    np.testing.assert_array_equal(pictures.decode(stored, 3), pictures.decode(data, 3))
    assert cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED).shape == (H, W, 3)
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.mode, image.info.get("transparency")) == ("RGB", None)
    assert len(notes) == bool(text)
    assert text in "".join(notes)


def deep(bits):
    """Values of so many bits, and the picture that they show in 8 bits."""
    values = np.random.default_rng(bits).integers(0, 1 << bits, (H, W, 3)).astype(np.uint16)
    values[0, 0] = (1 << bits) - 1
    return values, np.rint(values * (255 / ((1 << bits) - 1))).astype(np.uint8)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_declared_bits(bits, channels):
    values, want = deep(bits)
    values, want = values[..., :channels], np.broadcast_to(want[..., :channels], (H, W, 3))
    data = pictures.encode_png(values)
    declared = inserted(data, b"sBIT", bytes([bits] * channels))
    with pictures.collect_notes() as notes:
        np.testing.assert_array_equal(pictures.photograph(declared), want)
        np.testing.assert_array_equal(pictures.decode(readers.photograph("")(declared)[0], 3), want)
    assert notes == []
    with pictures.collect_notes() as notes:
        np.testing.assert_array_equal(pictures.photograph(data), pictures.decode(data, 3))
    (text,) = notes
    assert f"none above {(1 << bits) - 1} ({bits} bits). It is dark" in text


def test_declared_bits_of_alpha_do_not_count():
    values, want = deep(12)
    full = np.full((H, W, 1), 4095, np.uint16)
    png = cv2.imencode(".png", np.concatenate([values[..., ::-1], full], axis=2))[1].tobytes()
    with pictures.collect_notes() as notes:
        np.testing.assert_array_equal(pictures.photograph(inserted(png, b"sBIT", bytes([12, 12, 12, 16]))), want)
    (text,) = notes
    assert DROPPED in text


def test_values_in_the_upper_bits():
    """PNG demands that values of fewer bits are scaled up. What follows this rule is shown as it is, dark or not."""
    values, _ = deep(12)
    for upper in (values << 4, (values >> 5) << 4):
        data = pictures.encode_png(upper)
        declared = inserted(data, b"sBIT", bytes([12, 12, 12]))
        with pictures.collect_notes() as notes:
            np.testing.assert_array_equal(pictures.photograph(declared), upper >> 8)
        assert notes == []


def test_pictures_of_16_bits_that_are_bright():
    values, _ = deep(16)
    for data in (pictures.encode_png(values), pictures.encode_png(np.zeros_like(values))):
        with pictures.collect_notes() as notes:
            np.testing.assert_array_equal(pictures.photograph(data), pictures.decode(data, 3))
        assert notes == []


def tiff(values, bits, **tags):
    """An uncompressed grey TIFF `[H, W]`; values of 12 bits are packed."""
    height, width = values.shape
    if bits == 12:
        text = "".join(f"{value:012b}" for value in values.ravel())
        content = int(text, 2).to_bytes(len(text) // 8, "big")
    else:
        content = values.astype("<u2").tobytes()
    rows = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(content)}
    rows |= {int(name[1:]): value for name, value in tags.items()}
    out = b"II*\x00" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(rows))
    return out + b"".join(struct.pack("<HHII", tag, 4, 1, rows[tag]) for tag in sorted(rows)) + bytes(4)


def test_declared_bits_of_a_tiff():
    values, want = deep(12)
    values, want = values[..., 0], np.broadcast_to(want[..., :1], (H, W, 3))
    with pictures.collect_notes() as notes:
        np.testing.assert_array_equal(pictures.photograph(tiff(values, 16, t281=4095)), want)
        np.testing.assert_array_equal(pictures.photograph(tiff(values, 12)), np.stack([values >> 4] * 3, axis=2))
        assert notes == []
        dark = pictures.photograph(tiff(values, 16))
        assert dark.max() == 15
        np.testing.assert_array_equal(pictures.photograph(tiff(values, 16, t281=3000)), dark)  # no number of bits
    assert ["none above 4095 (12 bits)" in text for text in notes] == [True, True]


def test_notes_without_a_collector_are_logged(caplog):
    pictures.photograph(saved(transparent(), "png"))
    assert DROPPED in caplog.text


def encoded(size, form, **options):
    """A picture as bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"comment": b"\xff\xc0" + bytes(9)})],
)
def test_the_size_is_that_of_the_decoded_picture(form, options):
    data = encoded((30, 47), form, **options)
    assert pictures.size(data) == pictures.decode(data, 3).shape[:2] == (30, 47)


def test_the_size_is_that_of_the_pixels_as_they_are_stored():
    """Labels do not follow the camera's orientation, and a thumbnail has a size of its own."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = encoded((5, 6), "JPEG").decode("latin-1")
    data = encoded((30, 47), "JPEG", exif=exif)
    assert pictures.size(data) == pictures.decode(data, 3).shape[:2] == (30, 47)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9", b"GIF89a\xff\xc0\0\x11\x08\0\1\0\1"])
def test_bytes_without_a_size(data):
    with pytest.raises(ValueError, match="it is no JPEG or PNG with a size"):
        pictures.size(data)
