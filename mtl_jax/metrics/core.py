"""The interface of the metrics, the accumulation over a data set, and array helpers.

`Metric.update` reduces a batch to sufficient statistics of each image, an `Accumulator` collects them on the host, and
`Metric.compute` computes the scores. `update` has one implementation for two kinds of arrays: jax arrays in float32,
also inside `jax.jit` (scores while training), and NumPy arrays in float64 (the final protocol).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

Stats = dict[str, Any]  # {name: [B, ...]}, jax or NumPy
Result = dict[str, float | list[float]]


class Metric(ABC):
    """The interface of a metric of one task.

    Attributes:
        summed: Names of the statistics that are too large to keep for each image; the accumulator sums them.
        from_summed: Names of the scores that depend on these statistics.
        of_one_image: {score: score that takes its place where there is one image alone}.
        higher_is_better: {score: True if higher scores are better, False if lower ones are} of the scores by which
            checkpoints may be ranked (`train.best`). The deciding score of the task need not stand there.
    """

    summed: ClassVar[tuple[str, ...]] = ()
    from_summed: ClassVar[tuple[str, ...]] = ()
    of_one_image: ClassVar[Mapping[str, str]] = {}
    higher_is_better: ClassVar[Mapping[str, bool]] = {}

    @abstractmethod
    def empty(self) -> Stats:
        """Returns statistics of zero images, which define the names, the shapes `[0, ...]` and the dtypes."""

    @abstractmethod
    def update(self, prediction: Any, label: Any) -> Stats:
        """Computes the statistics of each image of a batch, `{name: [B, ...]}`; does not change its inputs."""

    @abstractmethod
    def compute(self, stats: Stats) -> Result:
        """Computes the scores from statistics `{name: [N, ...]}`; those in `summed` have no image axis.

        A score that is undefined, for example because no image has a label, is NaN.
        """

    def resampled(self, stats: Stats, everything: Stats) -> Result:
        """Computes the scores of a bootstrap sample.

        Args:
            stats: Statistics of the images that were drawn with replacement, `{name: [N, ...]}`.
            everything: Statistics of all images, `{name: [N, ...]}`.
        """
        return self.compute(stats)


class Accumulator:
    """Collects the statistics of a data set on the host, in int64 and float64.

    The statistics of each image are kept, so scores of subsets (for example of a bootstrap) need no second pass over
    the data. The scores depend neither on the batch size, nor on padding, nor on the order of the images.

    Args:
        metric: Metric whose statistics are collected.
    """

    def __init__(self, metric: Metric):
        self.metric = metric
        self._empty = {name: _widen(value) for name, value in metric.empty().items()}
        self._kept: dict[str, list[np.ndarray]] = {name: [] for name in self._empty if name not in metric.summed}
        self._sums = {name: value.sum(axis=0) for name, value in self._empty.items() if name in metric.summed}

    def update(self, stats: Stats, valid: Any = None) -> None:
        """Adds the statistics of a batch.

        Args:
            stats: Result of `metric.update`, `{name: [B, ...]}`.
            valid: Bool `[B]` that is False for images that only pad the batch. None means that all images count.

        Raises:
            ValueError: the names or shapes of the statistics are not those of the metric.
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
        """Adds the statistics that another accumulator of the same metric has collected, e.g. in another process.

        Raises:
            ValueError: the other accumulator has another metric.
        """
        if other.metric != self.metric:
            raise ValueError(f"cannot merge the statistics of {other.metric} into those of {self.metric}")
        for name, parts in other._kept.items():
            self._kept[name] = [*self._kept[name], *parts]
        for name, value in other._sums.items():
            self._sums[name] = self._sums[name] + value

    def stats(self) -> dict[str, np.ndarray]:
        """Returns all statistics, `{name: [N, ...]}`; those in `Metric.summed` have no image axis."""
        kept = {name: np.concatenate([self._empty[name], *parts]) for name, parts in self._kept.items()}
        return {**kept, **{name: value.copy() for name, value in self._sums.items()}}

    def compute(self) -> Result:
        """Computes the scores of all images."""
        return self.metric.compute(self.stats())

    def bootstrap(self, resamples: int, seed: int, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Computes confidence intervals of the scalar scores by a bootstrap over the images, see `intervals`.

        There are no intervals for the scores in `Metric.from_summed`, whose statistics are not kept for each image.

        Args:
            resamples: Number of bootstrap samples.
            seed: Seed of the random numbers.
            level: Confidence level, between 0 and 1.

        Returns:
            {score: (lower bound, upper bound)}
        """
        stats = self.stats()
        kept = {name: value for name, value in stats.items() if name in self._kept}
        summed = {name: value for name, value in stats.items() if name not in self._kept}

        def scores(images: np.ndarray) -> Result:
            drawn = {name: value[images] for name, value in kept.items()}
            result = self.metric.resampled({**drawn, **summed}, stats)
            return {name: value for name, value in result.items() if name not in self.metric.from_summed}

        return intervals(scores, len(next(iter(kept.values()))), resamples, seed, level)


def intervals(
    scores: Callable[[np.ndarray], Result], count: int, resamples: int, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Computes confidence intervals by the percentile bootstrap (Efron and Tibshirani 1993, ch. 13) over images.

    Args:
        scores: Function from positions of images, int `[count]` with repetitions, to the scores of these images. Scores
            that are lists get no interval.
        count: Number of images in the data set.
        resamples: Number of bootstrap samples, each of `count` images drawn with replacement.
        seed: Seed of the random numbers.
        level: Confidence level: the share of the bootstrap scores that lies within the interval.

    Returns:
        {score: (lower bound, upper bound)}; an empty dict if there are no images.

    Raises:
        ValueError: `resamples` is below 1, or `level` is not between 0 and 1.
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
    bounds = {}
    for name, value in drawn[0].items():
        if isinstance(value, float):
            values = np.array([result[name] for result in drawn])
            defined = values[np.isfinite(values)]  # a score is undefined if no drawn image has a label
            low, high = np.quantile(defined, [outside, 1 - outside]) if len(defined) else (math.nan, math.nan)
            bounds[name] = (float(low), float(high))
    return bounds


def _widen(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float64 if np.issubdtype(array.dtype, np.floating) else np.int64)


def namespace(array: Any) -> tuple[Any, Any]:
    """Returns the module for an array (`numpy` or `jax.numpy`), and the float type of its reductions.

    NumPy arrays are reduced in float64. jax arrays are reduced in float32, even if 64-bit jax is enabled: a single
    image has too few pixels for a relevant rounding error.
    """
    xp = array.__array_namespace__()
    return xp, np.float64 if xp is np else np.float32


def check_shapes(prediction: Any, label: Any, channels: int | None) -> None:
    """Checks the shapes of a prediction and its label.

    Args:
        prediction: Prediction, `[B, H, W, channels]`, or `[B, H, W]` if `channels` is None.
        label: Label, `[B, H, W, channels]`, or `[B, H, W, 1]` if `channels` is None.
        channels: Number of channels, or None for a map of classes.

    Raises:
        ValueError: a shape differs.
    """
    want = prediction.shape[:3] + (() if channels is None else (channels,))
    fits = prediction.shape == want and label.shape == (*want[:3], channels or 1) and len(want) == 3 + bool(channels)
    if not fits:
        form = "[B, H, W]" if channels is None else f"[B, H, W, {channels}]"
        raise ValueError(
            f"expected a prediction {form} and a label [B, H, W, {channels or 1}] of one size; "
            f"got {tuple(prediction.shape)} and {tuple(label.shape)}"
        )


def counts(values: Any, mask: Any, bins: int) -> Any:
    """Counts the occurrences of 0, ..., bins - 1 in each image within a mask; ignores other values.

    Args:
        values: Integers, `[B, ...]`.
        mask: Bool of the same shape.
        bins: Number of counted values.

    Returns:
        The counts, int32 `[B, bins]`.
    """
    xp, _ = namespace(values)
    values, mask = values.reshape(len(values), -1).astype(np.int32), mask.reshape(len(mask), -1)
    index = xp.where(mask & (values >= 0) & (values < bins), values, bins)  # the last bin collects ignored values
    if xp is np:
        occurrences = np.stack([np.bincount(row, minlength=bins + 1) for row in index])
    else:  # vmap keeps a sharded batch sharded; offsets into one long vector would not
        occurrences = jax.vmap(lambda row: xp.bincount(row, length=bins + 1))(index)
    return occurrences[:, :-1].astype(np.int32)


def image_sum(values: Any, mask: Any) -> Any:
    """Sums the values of each image within a mask: `[B, ...]` -> `[B]`; bools are counted in int32."""
    xp, _ = namespace(values)
    dtype = np.int32 if values.dtype == bool else values.dtype
    return xp.where(mask, values, xp.zeros_like(values)).reshape(values.shape[0], -1).sum(axis=1, dtype=dtype)


def total(values: np.ndarray) -> np.ndarray:
    """Sums over images: `[N, ...]` -> `[...]`; the sum is correctly rounded and independent of the order."""
    columns = values.reshape(len(values), math.prod(values.shape[1:])).T
    return np.array([math.fsum(column) for column in columns]).reshape(values.shape[1:])


def ratio(numerator: Any, denominator: Any, empty: float = math.nan) -> np.ndarray:
    """Divides element by element in float64; the quotient is `empty` where the denominator is 0."""
    a, b = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(a, b, out=np.full(a.shape, empty), where=b != 0)
