"""Foreground or background: saliency, edges."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.codecs import label_pictures, pictures
from mtl_jax.labels import colors, lines, readers
from mtl_jax.labels.error_maps import ErrorMap, ErrorSizes, mean_of
from mtl_jax.labels.keys import Bar, Color, Key, Style, Swatches
from mtl_jax.labels.kind import IGNORE, Conventions, LabelKind, StoredForm, mean_value, percent, plane
from mtl_jax.labels.label_files import LEVELS, LabelFiles
from mtl_jax.labels.readers import Reader, Size
from mtl_jax.labels.sizes import resize

TINT = (255, 170, 0)  # colour of a foreground region
LINE = (255, 0, 80)  # colour of a foreground line
_PAPER, _SHADE = (255, 255, 255), (0, 0, 0)  # laid over the image below lines, and over the background of regions
_WHITE, _GREY = 255, 128  # values of the foreground, and of pixels without a label, in files that this package writes
_FEWEST_LEVELS = 16  # a mask with fewer values may hold ids as well as grey levels
_SAY_IT = (
    'Say it: foreground = [255], background = [0], ignore = [128] for single values, or foreground = "levels" for grey '
    "levels from 0 (background) to 255 (foreground)"
)
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Foreground(LabelKind):
    """A probability of being foreground: labels from 0 to 1, float32 `[H, W, 1]`, with 255 where there is none.

    Predictions are maps in 0..255, `[B, H, W, 1]`: 255 times the sigmoid of the logit.

    Attributes:
        binary: Labels above 0.5 become 1, the others 0; otherwise labels keep their values.
        lines: The foreground consists of lines one pixel wide, such as edges, and is drawn as such.
    """

    binary: bool = True
    lines: bool = False

    prediction_range = (0, 255)

    def meaning(self, conventions: Conventions) -> str:
        return "probability p as 255 p"

    def num_logits(self, num_classes: int) -> int:
        return 1

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        if stored.dtype == np.uint8:  # one pass over the map instead of one for each operation
            return cv2.LUT(stored, _code_values(self)).reshape(stored.shape)
        return self._canonical(stored.astype(np.float32))

    def _canonical(self, values: np.ndarray) -> np.ndarray:
        if not self.binary:
            return values
        return np.where(values == IGNORE, IGNORE, values > 0.5).astype(np.float32)

    def redrawn(self, label: np.ndarray, resized: np.ndarray) -> np.ndarray:
        """Returns regions by interpolation; lines are drawn anew where the resized label has a value."""
        if not self.lines:
            return resized
        present = np.where(label == IGNORE, 0, label)[..., 0]
        drawn = lines.redraw(present, resized.shape[0], resized.shape[1])[..., None]
        return np.where(resized == IGNORE, resized, drawn)

    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        return (rng.random((*shape, 1), np.float32) < 0.1).astype(np.float32)

    def activate(self, logits: jax.Array) -> jax.Array:
        return 255 * self.soften(logits)

    def soften(self, logits: jax.Array) -> jax.Array:
        """Returns the probability of the foreground, the sigmoid of the logit."""
        return jax.nn.sigmoid(logits)

    def confidence(self, values: np.ndarray) -> np.ndarray | None:
        """Returns the probability of the more probable one of foreground and background, float32 `[H, W]`."""
        p = plane(values).astype(np.float32)
        return np.maximum(p, 1 - p)

    def as_label(self, decided: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Returns 1 where the foreground is at least as probable as the background, else 0."""
        return (super().as_label(decided, conventions) >= 0.5).astype(np.float32)

    def as_prediction(self, decided: np.ndarray) -> np.ndarray:
        return 255 * decided

    def map_meaning(self, conventions: Conventions) -> str:
        return "probability of the foreground, from 0 to 1"

    def map_files(self, decided: np.ndarray, num_classes: int) -> dict[str, bytes]:
        return {".png": pictures.encode_png(np.rint(255 * plane(decided)).astype(np.uint8))}

    def describe_map_files(self, conventions: Conventions) -> dict[str, str]:
        return {".png": "grey PNG: the value of a pixel is 255 p, p the probability of the foreground"}

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the mean of the labels, float32 `[1, 1, 1]`."""
        p = np.asarray(mean_value(self, labels), np.float32).reshape(1, 1, 1, -1)
        p = np.clip(p, _EPS, 1 - _EPS)  # 0 and 1 have no logit: nothing, or everything, is foreground
        return np.asarray(self.activate(jnp.asarray(np.log(p / (1 - p)))))[0]

    def count_classes(self, label: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns how many pixels of a delivered label `[H, W, 1]` are below 0.5, and at least 0.5, int64 `[2]`."""
        values = label[label != IGNORE]
        foreground = int((values >= 0.5).sum())
        return np.array([values.size - foreground, foreground], np.int64)

    def fit(self, array: np.ndarray, height: int, width: int, *, is_label: bool) -> np.ndarray:
        small = super().fit(array, height, width, is_label=is_label)
        if not is_label or height >= array.shape[0]:
            return small
        # A line one pixel wide would become dots if only every n-th pixel were looked at.
        share = resize(((array != IGNORE) & (array >= 0.5)).astype(np.float32), height, width, cv2.INTER_AREA)
        return np.where(self.labelled(small)[..., None], share >= 0.25, IGNORE).astype(np.float32)

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws black for 0 to white for 1; labels are white where at least 0.5."""
        grey = np.round(255 * _probability(array, is_label)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)

    def overlay(
        self,
        image: np.ndarray,
        array: np.ndarray,
        *,
        is_label: bool,
        low: float | None = None,
        high: float | None = None,
    ) -> np.ndarray:
        """Draws lines in colour over a pale image, regions in colour with a line around them over a dark image."""
        probability = _probability(array, is_label)[..., None]
        if self.lines:
            return colors.blend(colors.blend(image, _PAPER), LINE, probability)
        dark = colors.blend(image, _SHADE)
        drawn = colors.blend(dark, colors.blend(image, TINT), probability)
        drawn[colors.boundary(probability[..., 0] >= 0.5)] = colors.BOUNDARY
        return drawn

    def key(
        self,
        arrays: Sequence[tuple[np.ndarray, bool]],
        *,
        style: Style,
        names: Sequence[str],
        conventions: Conventions,
        low: float | None,
        high: float | None,
    ) -> Key:
        """Returns a scale of probabilities, or the colour of the foreground where there are labels alone."""
        absent, present = self._ends(style)
        if all(is_label for _, is_label in arrays):
            return Swatches(((present, "edge" if self.lines else "foreground"),))
        scale = np.linspace(absent, present, 256).round().astype(np.uint8)
        return Bar(scale, 0.0, 1.0, title=f"probability of {'an edge' if self.lines else 'foreground'}")

    def _ends(self, style: Style) -> tuple[Color, Color]:
        """Returns the colours of the probabilities 0 and 1."""
        if style == "map":
            return (0, 0, 0), (255, 255, 255)
        return (_PAPER, LINE) if self.lines else (_SHADE, TINT)

    def errors(self, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
        """Returns the distance of the predicted probability from the label."""
        truth = plane(label).astype(np.float32)
        distance = np.abs(np.clip(plane(prediction), 0, 255).astype(np.float32) / 255 - truth)
        distance[~self.labelled(label)] = np.nan
        return ErrorSizes(distance, f"mean error {mean_of(distance):.3f}", limit=1.0)

    def summarise(self, values: np.ndarray, names: Sequence[str] = ()) -> str:
        return f"{percent((values >= 0.5).mean())} positive"

    @property
    def folder_options(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("foreground", "background", "ignore", *(("from",) if self.lines else ()))

    def reader(self, files: LabelFiles) -> Reader:
        if files.foreground == LEVELS:
            return self._storing(files, _shares(files))
        if files.foreground:
            return self._storing(files, _declared(files))
        return _probabilities if files.suffix == ".npy" else _clear_mask

    def written_files(self, class_names: Sequence[str], conventions: Conventions) -> LabelFiles:
        return LabelFiles(foreground=(_WHITE,), background=(0,), ignore=(_GREY,))

    def encode_label(self, label: np.ndarray) -> bytes:
        """Returns a PNG that is white (255) where the label is at least 0.5, else black (0); grey (128) = no label."""
        values = np.where(label >= 0.5, _WHITE, 0)
        values[~self.labelled(label)] = _GREY
        return pictures.encode_png(values.astype(np.uint8))

    def stored_form(self, files: LabelFiles) -> StoredForm:
        return "float32" if _may_ignore(files) else "png"

    def unlabelled(self, files: LabelFiles, size: Size) -> Any:
        return np.full((*size, 1), IGNORE, np.float32) if _may_ignore(files) else super().unlabelled(files, size)

    def derived(self, source: np.ndarray) -> Any:
        """Returns the lines between regions of different classes.

        A pixel belongs to a line if the pixel to its right or below has another class. Pixels without a class have no
        label, and no line runs between a class and such pixels.

        Args:
            source: Class ids `[H, W, 1]`, 255 where there is none.
        """
        classes = plane(source)
        lines = np.zeros(classes.shape, np.float32)
        for here, neighbour in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            differs = classes[here] != classes[neighbour]
            lines[here][differs & (classes[neighbour] != IGNORE)] = 1
        lines[classes == IGNORE] = IGNORE
        return lines[..., None]

    def _storing(self, files: LabelFiles, load: readers.Load) -> Reader:
        """Returns a reader of shares of foreground, float32 `[H, W, 1]` with 255 where a pixel has no label."""

        def reader(data: bytes) -> tuple[Any, Size]:
            shares = load(data)
            stored = shares if _may_ignore(files) else pictures.encode_png(np.rint(shares * 255).astype(np.uint8))
            return stored, (shares.shape[0], shares.shape[1])

        return reader


def _probability(array: np.ndarray, is_label: bool) -> np.ndarray:
    """Returns the probability of foreground that a drawing shows, from 0 to 1, float32 `[H, W]`."""
    values = plane(array)
    if is_label:
        return (values >= 0.5).astype(np.float32)
    return np.clip(np.nan_to_num(values), 0, 255).astype(np.float32) / 255


def _may_ignore(files: LabelFiles) -> bool:
    """Returns True if single pixels of such labels may have none, for which a PNG has no value."""
    return bool(files.derived_from or (files.foreground and files.ignore))


def _declared(files: LabelFiles) -> readers.Load:
    """Returns the function that reads a file in which the folder says what each value means."""
    meanings = dict.fromkeys(files.ignore, IGNORE) | dict.fromkeys(files.background, 0)
    meanings |= dict.fromkeys([value for value in files.foreground if isinstance(value, int)], 1)
    expected = f"{_listed(files.foreground)} (foreground), {_listed(files.background)} (background)"
    expected += f", {_listed(files.ignore)} (ignored)" if files.ignore else ""

    def load(data: bytes) -> np.ndarray:
        raw = readers.as_map(files.load()(data), 1)
        return readers.translated(raw, meanings, "values", expected).astype(np.float32)

    return load


def _shares(files: LabelFiles) -> readers.Load:
    """Returns the function that reads a file whose values from 0 to 255 are shares of foreground."""

    def load(data: bytes) -> np.ndarray:
        raw = readers.as_map(files.load()(data), 1)
        ignored = np.isin(raw, files.ignore)
        if not ((raw >= 0) & (raw <= 255) | ignored).all():
            raise ValueError(f"values from {raw.min():g} to {raw.max():g}, expected 0 to 255")
        return np.where(ignored, IGNORE, raw.astype(np.float32) / 255)

    return load


def _listed(values: Iterable[object]) -> str:
    return " and ".join(map(str, values))


def _probabilities(data: bytes) -> tuple[bytes, Size]:
    """Reads a `.npy` file of a folder that does not say what its values mean: they are shares from 0 to 1."""
    value = readers.npy(data)
    if value.dtype.kind in "iu" and value.size and value.max() > 1:
        raise ValueError(f"whole numbers up to {value.max()}, and it is not clear which are foreground. {_SAY_IT}")
    return readers.probabilities(readers.npy)(data)


def _clear_mask(data: bytes) -> tuple[bytes, Size]:
    """Reads a mask of a folder that does not say what its values mean; they must be clear without that."""
    value = label_pictures.levels(data)
    if value.dtype != np.uint8:
        raise ValueError(f"values of type {value.dtype}, expected grey levels in 8 bits")
    values = np.unique(value).tolist()
    if pictures.grey_step(data) == 255:  # a PNG of one bit has nothing but black and white
        value, values = value * 255, [255 * each for each in values]
    if not set(values) <= {0, 255} and len(values) < _FEWEST_LEVELS:
        raise ValueError(
            f"its values are {', '.join(map(str, values))}, and it is not clear which are foreground. {_SAY_IT}"
        )
    return pictures.encode_png(value), (value.shape[0], value.shape[1])


@cache
def _code_values(kind: Foreground) -> np.ndarray:
    """The canonical values of the codes 0..255 of a stored map, float32 `[256]`."""
    return kind._canonical(np.arange(256, dtype=np.float32) / np.float32(255))
