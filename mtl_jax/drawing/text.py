"""Lines of text, in the font that Pillow brings along."""

import math
import unicodedata
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 15  # of the letters, in pixels
LINE = 21  # height of a line in pixels
_BASE = 15  # pixels from the top of a line to the foot of its letters
_INK = 40  # grey level
_MORE = "…"
_CHARACTERS = frozenset(map(chr, range(32, 127))) | set("°·…")  # that the font has


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(SIZE)


def width(text: str) -> int:
    """Returns how many pixels a text takes."""
    return _rendered(_readable(text)).shape[1]


def fitted(text: str, room: int) -> str:
    """Returns a text that takes at most `room` pixels, with "…" for what is left out of its middle.

    The end stays, because names of images differ there.
    """
    if width(text) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        tail = kept // 2
        shortened = text[: kept - tail] + _MORE + text[len(text) - tail :]
        if width(shortened) <= room:
            return shortened
    return ""


def write(strip: np.ndarray, text: str) -> None:
    """Writes a text on white into a strip uint8 `[LINE, W, 3]`, shortened if it does not fit."""
    drawn = _rendered(_readable(fitted(text, strip.shape[1])))
    strip[:] = 255
    strip[:, : drawn.shape[1]] = drawn[..., None]


def wrapped(text: str, room: int) -> list[str]:
    """Returns the lines of a text of which each takes at most `room` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _readable(text: str) -> str:
    """Returns a text of characters that the font has: letters without accents, and "?" for other alphabets."""
    if set(text) <= _CHARACTERS:
        return text
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.replace("ß", "ss")) if not unicodedata.combining(c))
    return "".join(c if c in _CHARACTERS else "?" for c in bare)


@lru_cache(4096)
def _rendered(text: str) -> np.ndarray:
    """Returns a text on white as grey levels uint8 `[LINE, W]`."""
    image = Image.new("L", (max(math.ceil(_font().getlength(text)), 1), LINE), 255)
    ImageDraw.Draw(image).text((0, _BASE), text, fill=_INK, font=_font(), anchor="ls")
    return np.asarray(image)
