"""What every metric shares: its interface, the accumulation over a data set, and a few array helpers.

A metric reduces one batch to sufficient statistics of each image (`update`), an `Accumulator` collects them on the
host, and `compute` turns the collection into numbers. `update` has one implementation for two kinds of arrays: jax
arrays, also inside `jax.jit`, in float32 (scores while training) and NumPy arrays in float64 (the final protocol).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

Stats = dict[str, Any]  # {name: [B, ...]}, jax or NumPy
Result = dict[str, float | list[float]]


class Metric(ABC):
    """A score of one task.

    Attributes:
        summed: statistics too large to keep for each image; the accumulator adds them up.
        from_summed: the scores that follow from those.
    """

    summed: ClassVar[tuple[str, ...]] = ()
    from_summed: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def empty(self) -> Stats:
        """The statistics of no image: the right names, shapes `[0, ...]` and dtypes."""

    @abstractmethod
    def update(self, prediction: Any, label: Any) -> Stats:
        """Statistics of each image of a batch, `{name: [B, ...]}`; the inputs are left as they are."""

    @abstractmethod
    def compute(self, stats: Stats) -> Result:
        """The scores of a collection `{name: [N, ...]}` (without the image axis for `summed`); NaN if undefined."""

    def resampled(self, stats: Stats, everything: Stats) -> Result:
        """The scores of images drawn from `everything`, some repeatedly and some not at all."""
        return self.compute(stats)


class Accumulator:
    """Collects the statistics of a data set on the host, in int64 and float64.

    They are kept for each image, so that scores of subsets (a bootstrap, say) need no second pass over the data.
    Neither the batch size, nor padding, nor the order of the images changes the scores.
    """

    def __init__(self, metric: Metric):
        self.metric = metric
        self._empty = {name: _widen(value) for name, value in metric.empty().items()}
        self._kept: dict[str, list[np.ndarray]] = {name: [] for name in self._empty if name not in metric.summed}
        self._sums = {name: value.sum(axis=0) for name, value in self._empty.items() if name in metric.summed}

    def update(self, stats: Stats, valid: Any = None) -> None:
        """Adds the result of `metric.update`.

        Args:
            stats: `{name: [B, ...]}`.
            valid: bool `[B]`, False for the images that only pad the batch; None: all are real.

        Raises:
            ValueError: the statistics are not those of the metric, or the shapes do not fit.
        """
        if set(stats) != set(self._empty):
            raise ValueError(f"got the statistics {sorted(stats)}, this metric has {sorted(self._empty)}")
        arrays = {name: np.asarray(value) for name, value in stats.items()}
        batch = len(next(iter(arrays.values())))
        keep = np.ones(batch, bool) if valid is None else np.asarray(valid, bool)
        for name, array in arrays.items():
            want = (batch, *self._empty[name].shape[1:])
            if array.shape != want or keep.shape != (batch,):
                raise ValueError(f"{name}: shape {array.shape}, mask {keep.shape}; expected {want} and {(batch,)}")
        for name, array in arrays.items():
            if name in self._sums:
                self._sums[name] = self._sums[name] + array[keep].sum(axis=0, dtype=self._sums[name].dtype)
            else:
                self._kept[name].append(_widen(array[keep]))

    def merge(self, other: "Accumulator") -> None:
        """Adds what another accumulator of the same metric has collected, as on another process."""
        if other.metric != self.metric:
            raise ValueError(f"cannot merge the statistics of {other.metric} into those of {self.metric}")
        for name, parts in other._kept.items():
            self._kept[name] = [*self._kept[name], *parts]
        for name, value in other._sums.items():
            self._sums[name] = self._sums[name] + value

    def stats(self) -> dict[str, np.ndarray]:
        """Everything collected: `{name: [N, ...]}`, without the image axis for the summed statistics."""
        kept = {name: np.concatenate([self._empty[name], *parts]) for name, parts in self._kept.items()}
        return {**kept, **{name: value.copy() for name, value in self._sums.items()}}

    def compute(self) -> Result:
        """The scores of everything collected."""
        return self.metric.compute(self.stats())

    def bootstrap(self, resamples: int, seed: int, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Confidence intervals of the scalar scores over the images, see `intervals`.

        Scores for which single images are not kept (`Metric.from_summed`) have none.
        """
        stats = self.stats()
        kept = {name: value for name, value in stats.items() if name in self._kept}
        summed = {name: value for name, value in stats.items() if name not in self._kept}

        def scores(images: np.ndarray) -> Result:
            found = self.metric.resampled({**{name: value[images] for name, value in kept.items()}, **summed}, stats)
            return {name: value for name, value in found.items() if name not in self.metric.from_summed}

        return intervals(scores, len(next(iter(kept.values()))), resamples, seed, level)


def intervals(
    scores: Callable[[np.ndarray], Result], count: int, resamples: int, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap (Efron and Tibshirani 1993, ch. 13) over the images of a data set.

    Args:
        scores: positions of images `[count]`, some repeatedly -> their scores; lists are left out.
        count: number of images.
        resamples: how many sets of as many images, drawn with replacement, are scored.
        seed: of the drawing.
        level: share of the resampled scores within the interval.

    Returns:
        {score: (lower, upper)}; none without images.

    Raises:
        ValueError: no resamples, or a level that is no share.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"got {resamples} resamples and the level {level}, expected at least 1 and a share such as 0.95"
        )
    if not count:
        return {}
    rng = np.random.default_rng(seed)
    drawn = [scores(rng.integers(count, size=count)) for _ in range(resamples)]
    outside = (1 - level) / 2
    found = {}
    for name, value in drawn[0].items():
        if isinstance(value, float):
            values = np.array([result[name] for result in drawn])
            defined = values[np.isfinite(values)]  # a score is undefined where no image drawn has a label
            low, high = np.quantile(defined, [outside, 1 - outside]) if len(defined) else (math.nan, math.nan)
            found[name] = (float(low), float(high))
    return found


def _widen(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float64 if np.issubdtype(array.dtype, np.floating) else np.int64)


def namespace(array: Any) -> tuple[Any, Any]:
    """The module that computes with this array (`numpy` or `jax.numpy`) and the float type to compute in.

    NumPy arrays are reduced in float64. On the device it is float32, with or without 64-bit jax: one image has too
    few pixels for the difference to show.
    """
    xp = array.__array_namespace__()
    return xp, np.float64 if xp is np else np.float32


def check_shapes(prediction: Any, label: Any, channels: int | None) -> None:
    """Raises ValueError unless `[B, H, W]` (channels None) or `[B, H, W, channels]` meets a fitting label."""
    want = prediction.shape[:3] + (() if channels is None else (channels,))
    fits = prediction.shape == want and label.shape == (*want[:3], channels or 1) and len(want) == 3 + bool(channels)
    if not fits:
        form = "[B, H, W]" if channels is None else f"[B, H, W, {channels}]"
        raise ValueError(
            f"expected a prediction {form} and a label [B, H, W, {channels or 1}] of one size; "
            f"got {tuple(prediction.shape)} and {tuple(label.shape)}"
        )


def counts(values: Any, mask: Any, bins: int) -> Any:
    """How often each of 0..bins-1 occurs in each image where the mask holds; other values are left out.

    Args:
        values: integers `[B, ...]`.
        mask: bool, the same shape.

    Returns:
        int32 `[B, bins]`.
    """
    xp, _ = namespace(values)
    values, mask = values.reshape(len(values), -1).astype(np.int32), mask.reshape(len(mask), -1)
    index = xp.where(mask & (values >= 0) & (values < bins), values, bins)  # the last bin collects what is left out
    if xp is np:
        found = np.stack([np.bincount(row, minlength=bins + 1) for row in index])
    else:  # over the images by vmap, not by offsets into one long vector: a batch that is sharded stays sharded
        found = jax.vmap(lambda row: xp.bincount(row, length=bins + 1))(index)
    return found[:, :-1].astype(np.int32)


def image_sum(values: Any, mask: Any) -> Any:
    """Sum over the pixels of each image where the mask holds: `[B, ...]` -> `[B]`; bools are counted in int32."""
    xp, _ = namespace(values)
    dtype = np.int32 if values.dtype == bool else values.dtype
    return xp.where(mask, values, xp.zeros_like(values)).reshape(values.shape[0], -1).sum(axis=1, dtype=dtype)


def total(values: np.ndarray) -> np.ndarray:
    """Sum over images, correctly rounded and thus the same in every order: `[N, ...]` -> `[...]`."""
    columns = values.reshape(len(values), math.prod(values.shape[1:])).T
    return np.array([math.fsum(column) for column in columns]).reshape(values.shape[1:])


def ratio(numerator: Any, denominator: Any, empty: float = math.nan) -> np.ndarray:
    """Elementwise quotient in float64; `empty` where the denominator is 0."""
    a, b = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(a, b, out=np.full(a.shape, empty), where=b != 0)
