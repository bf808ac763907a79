"""Reading original files."""

import io

import numpy as np
import pytest
from PIL import Image

from mtl_jax.codecs import pictures
from mtl_jax.labels import readers


def npy(x):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def pil(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize(("colours", "bits"), [(2, 1), (4, 2), (16, 4), (17, 8)])
def test_palettes_of_any_depth(colours, bits):
    raw = IDS % colours
    image = Image.fromarray(raw)
    image.putpalette([(97 * i) % 256 for i in range(3 * colours)])
    data = pil(image)
    assert data[24] == bits
    np.testing.assert_array_equal(pictures.decode_values(data)[..., 0], raw)


def test_grey_of_one_bit():
    raw = IDS % 2
    data = pil(Image.fromarray(255 * raw).convert("1"))
    assert data[24:26] == b"\x01\x00"
    np.testing.assert_array_equal(pictures.decode_values(data)[..., 0], raw)  # as class ids
    stored, size = readers.grey(data)  # as grey levels
    assert size == (3, 4)
    np.testing.assert_array_equal(pictures.decode(stored, 1)[..., 0], 255 * raw)


def test_grey_levels():
    stored, _ = readers.grey(pictures.encode_png(np.stack([IDS, IDS, IDS], axis=2)))
    np.testing.assert_array_equal(pictures.decode(stored, 1)[..., 0], IDS)
    with pytest.raises(ValueError, match="values of type uint16, expected grey levels in 8 bits"):
        readers.grey(pictures.encode_png(IDS.astype(np.uint16)))


def test_negative_and_large_class_ids():
    read = readers.class_ids(readers.npy, {-1: 255, 0: 0, 2: 1, 2**40: 2}, "-1, 0, 2")
    raw = np.array([[-1, 0, 2], [2**40, 2, -1]])
    stored, size = read(npy(raw))
    assert size == (2, 3)
    np.testing.assert_array_equal(pictures.decode(stored, 1)[..., 0], [[255, 0, 1], [2, 1, 255]])
    for wrong in (np.full((2, 2), -2), np.full((2, 2), 0.5), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"class ids .*, expected -1, 0, 2"):
            read(npy(wrong))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", npy(np.array([{}], object))])
def test_bytes_that_are_no_array(data):
    with pytest.raises(ValueError, match=r"not a readable .npy file"):
        readers.npy(data)


def test_unit_length():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 30, 3))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[:9] = 0
    readers.check_unit_length(vectors)
    for wrong in (vectors * 0.5, (vectors + 1) / 2):
        with pytest.raises(ValueError, match="of the vectors have length 1"):
            readers.check_unit_length(wrong)
