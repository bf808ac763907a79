"""Decoding of PNG files that hold labels: the values that are stored, and errors for what cannot be meant."""

import cv2
import numpy as np

from mtl_jax.codecs import pictures

_SHOWN = 3  # colours listed in an error


def values(data: bytes) -> np.ndarray:
    """Decodes a label picture to its values `[H, W, 1]`; a PNG with a palette gives its indices.

    A picture with three equal channels counts as grey, and an alpha channel is left out where nothing is transparent.

    Raises:
        ValueError: The file is no PNG, or damaged, or has colours or transparent pixels.
    """
    _check_png(data)
    if pictures.has_palette(data) or data[25] == 0:  # colour types of the PNG specification, section 11.2.2
        return pictures.decode_values(data)
    decoded = _opaque(data)
    if (decoded == decoded[..., :1]).all():
        return decoded[..., :1]
    different = np.unique(decoded.reshape(-1, 3), axis=0)
    shown = ", ".join(str(color) for color in different[:_SHOWN].tolist())
    raise ValueError(
        f"it is in colour ({len(different)} colours, for example {shown}), expected one value a pixel. Save it with "
        "one channel, or, for class ids, say which colour each class has: colors = [[red, green, blue], ...]"
    )


def levels(data: bytes) -> np.ndarray:
    """Decodes a label picture to its grey levels `[H, W, 1]`, see `values`.

    Raises:
        ValueError: See `values`; or the file has a palette, whose indices mean nothing.
    """
    if pictures.has_palette(data):
        raise ValueError("its values are indices into a palette, expected grey levels. Save it as a grey PNG")
    return values(data)


def colors(data: bytes) -> np.ndarray:
    """Decodes a label picture to its colours, RGB `[H, W, 3]` of 8 bits.

    Raises:
        ValueError: The file is no PNG of 8 bits, or damaged, or has transparent pixels.
    """
    _check_png(data)
    if data[24] > 8:
        raise ValueError(f"it has {data[24]} bits a channel, expected 8")
    return _opaque(data) if data[25] == 6 else pictures.decode(data, 3)


def _check_png(data: bytes) -> None:
    if data and not data.startswith(pictures.PNG):
        kind = "a JPEG, whose compression changes values" if data.startswith(b"\xff\xd8") else "no PNG"
        raise ValueError(f"it is {kind} (first bytes {data[:8]!r}), expected a PNG. Save the original label as PNG")


def _opaque(data: bytes) -> np.ndarray:
    """Decodes a PNG with colours or an alpha channel to `[H, W, 3]` in its own number of bits."""
    pictures.decode(data, 3)  # raises for damage, with a message that says what is wrong
    decoded = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    if decoded.shape[2] == 4:
        transparent = int((decoded[..., 3] != np.iinfo(decoded.dtype).max).sum())
        if transparent:
            raise ValueError(
                f"{transparent} of its pixels are transparent, and a label has no such values. Save it without alpha "
                "channel"
            )
    return decoded[..., 2::-1]
