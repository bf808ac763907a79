"""Real numbers: depth, heat maps, heights."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import scipy.io

from mtl_jax.codecs import map_files, matlab, pictures
from mtl_jax.labels import colors, readers
from mtl_jax.labels.error_maps import ErrorMap, ErrorSizes, mean_of
from mtl_jax.labels.keys import Bar, Key, Style
from mtl_jax.labels.kind import (
    IGNORE,
    Conventions,
    Interpolation,
    LabelKind,
    StoredForm,
    ignore_zeros,
    mean_value,
    plane,
)
from mtl_jax.labels.label_files import LabelFiles
from mtl_jax.labels.readers import Reader, Size

_SATURATED = 65535
_METRES = "m"


@dataclass(frozen=True)
class RealValues(LabelKind):
    """A number for every pixel: labels and predictions are float32 `[H, W, 1]`; labels are 255 where there is none.

    Attributes:
        unit: Unit of the values, for captions and descriptions, "m" for metres.
        zero_is_unlabelled: In stored and canonical labels 0 means that the pixel has no label.
        distance: The values are distances from the camera, see `LabelKind`.
        low: Least value that the files of a label may hold.
        high: Greatest value that the files of a label may hold, below 255, the ignored value.
        step: Value of one step in files with whole numbers, where a folder does not say it.
        label_interpolation: How the training transforms resample a label.
        colors_mean: What the colours of a drawing mean, the title of their scale.
    """

    unit: str = ""
    zero_is_unlabelled: bool = False
    distance: bool = False
    low: float = -math.inf
    high: float = math.nextafter(IGNORE, 0)
    step: float = 1.0
    label_interpolation: Interpolation = "linear"
    colors_mean: str = ""

    suffix = ".mat"
    folder_options = ("unit", "invalid", "max")

    @property
    def void(self) -> float:  # type: ignore[override]
        return 0 if self.zero_is_unlabelled else IGNORE

    def meaning(self, conventions: Conventions) -> str:
        return f"value in {self.unit}" if self.unit else "value in the unit of the labels"

    def num_logits(self, num_classes: int) -> int:
        return 1

    def decode(self, stored: np.ndarray, conventions: Conventions) -> np.ndarray:
        return stored.astype(np.float32)

    def mark_ignored(self, label: np.ndarray) -> np.ndarray:
        return ignore_zeros(label) if self.zero_is_unlabelled else label

    def labelled(self, label: np.ndarray) -> np.ndarray:
        known = super().labelled(label)
        return known & (label != 0).any(axis=-1) if self.zero_is_unlabelled else known

    def draw_random(self, rng: np.random.Generator, shape: tuple[int, ...], num_classes: int) -> np.ndarray:
        return rng.uniform(1, 9, (*shape, 1)).astype(np.float32)

    def activate(self, logits: jax.Array) -> jax.Array:
        return logits

    def as_label(self, decided: np.ndarray, conventions: Conventions) -> np.ndarray:
        """Returns the values from `low` to `high`, float32; other pixels have no label."""
        values = super().as_label(decided, conventions).astype(np.float32)
        return np.where((values >= self.low) & (values <= self.high), values, np.float32(self.void))

    def map_meaning(self, conventions: Conventions) -> str:
        return self.meaning(conventions)

    def map_files(self, decided: np.ndarray, num_classes: int) -> dict[str, bytes]:
        """Returns a .npy file with the values and, for values in metres, a PNG of 16 bits in millimetres as well."""
        values = plane(decided).astype(np.float32)
        files = {".npy": map_files.npy(values)}
        if self.unit == _METRES:
            files[".png"] = pictures.encode_png(np.rint(1000 * values).clip(0, _SATURATED).astype(np.uint16))
        return files

    def describe_map_files(self, conventions: Conventions) -> dict[str, str]:
        described = {".npy": f"NumPy array of float32: {self.meaning(conventions)}"}
        if self.unit == _METRES:
            described[".png"] = f"grey PNG of 16 bits: millimetres; {_SATURATED} stands for 65.535 m and more"
        return described

    def best_constant(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the mean of the labelled values, float32 `[1, 1, 1]`."""
        return np.asarray(mean_value(self, labels), np.float32).reshape(1, 1, 1)

    def quantise(self, prediction: np.ndarray) -> np.ndarray:
        """Returns a prediction as files hold it: float32."""
        return prediction.astype(np.float32)

    def encode_prediction(self, quantised: np.ndarray, task: str) -> bytes:
        """Returns a MATLAB file with the values `[H, W]` under the task's name."""
        content = io.BytesIO()
        scipy.io.savemat(content, {task: plane(quantised)})
        return content.getvalue()

    def decode_prediction(self, data: bytes, task: str) -> np.ndarray:
        _, values = matlab.variable(data, (task,))
        if values.dtype.kind not in "fiu" or values.ndim != 2 or not values.size:
            raise ValueError(f"{task} is {values.dtype} with the shape {values.shape}, expected numbers [H, W]")
        return values.astype(np.float32)[..., None]

    def shown(self, array: np.ndarray, *, is_label: bool) -> np.ndarray:
        return self._known(plane(array), is_label)

    def paint(
        self, array: np.ndarray, *, is_label: bool, low: float | None = None, high: float | None = None
    ) -> np.ndarray:
        """Draws viridis from `low` (dark) to `high` (bright), by default the range of the array."""
        values = plane(array).astype(np.float64)
        known = self._known(values, is_label)
        own_low, own_high = _limits([values[known]])
        low, high = own_low if low is None else low, own_high if high is None else high
        share = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-9), 0, 1)
        return colors.viridis(share)

    def value_range(self, arrays: Iterable[tuple[np.ndarray, bool]]) -> tuple[float | None, float | None]:
        return _limits([array[self._known(array, is_label)] for array, is_label in arrays])

    def _known(self, values: np.ndarray, is_label: bool) -> np.ndarray:
        """Returns which numbers are values of the map; the same shape."""
        known = np.isfinite(values)
        if is_label:
            known = known & (values != IGNORE)
            known = known & (values != 0) if self.zero_is_unlabelled else known
        return known

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
        """Returns the scale of the values, in the colours of `paint`."""
        least, greatest = _limits([])
        least, greatest = least if low is None else low, greatest if high is None else high
        ramp = np.linspace(least, greatest, 256)[None, :, None]
        scale = self.paint(ramp, is_label=False, low=least, high=greatest)[0]
        return Bar(scale, least, greatest, self.unit, self.colors_mean)

    def errors(self, prediction: np.ndarray, label: np.ndarray) -> ErrorMap:
        """Returns the absolute errors."""
        difference = np.abs(plane(prediction).astype(np.float32) - plane(label).astype(np.float32))
        difference[~self.labelled(label)] = np.nan
        return ErrorSizes(difference, f"mean error {mean_of(difference):.2f} {self.unit}".rstrip(), self.unit)

    def summarise(self, values: np.ndarray, names: Sequence[str] = ()) -> str:
        return f"{values.min():.2f} to {values.max():.2f} {self.unit}".rstrip()

    def reader(self, files: LabelFiles) -> Reader:
        def load(data: bytes) -> np.ndarray:
            raw = readers.as_map(files.load()(data), 1)
            if files.invalid is None and raw.dtype == np.uint16 and raw.max() == _SATURATED:
                raise ValueError(
                    f"{int((raw == _SATURATED).sum())} pixels hold {_SATURATED}, the greatest value of 16 bits, which "
                    f"often means that nothing was measured. Say it: invalid = [{_SATURATED}], or invalid = [] if "
                    "this is a value"
                )
            value = raw * files.unit if raw.dtype.kind in "iu" else raw.astype(np.float64)
            return np.where(np.isin(raw, files.invalid or ()) | (value > files.max), np.nan, value)

        return readers.floats(load, 1, self.low, self.high, self.void)

    def stored_form(self, files: LabelFiles) -> StoredForm:
        return "float32"

    def unlabelled(self, files: LabelFiles, size: Size) -> Any:
        return np.full((*size, 1), self.void, np.float32)

    def default_step(self) -> float:
        return self.step


def _limits(values: list[np.ndarray]) -> tuple[float, float]:
    """Returns the least and the greatest value, (0, 1) where there is none."""
    joined = np.concatenate([np.zeros(0), *(v.reshape(-1) for v in values)])
    return (float(joined.min()), float(joined.max())) if joined.size else (0.0, 1.0)
