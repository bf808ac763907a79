"""Scores of edges by the final protocol: odsF, oisF and AP of a data set, collected image by image."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax import boundaries
from mtl_jax.codecs import pictures
from mtl_jax.data.split import Split
from mtl_jax.labels import IGNORE
from mtl_jax.metrics import Result, Stats
from mtl_jax.metrics.core import intervals
from mtl_jax.protocol import EdgeRule

_SCORES = ("odsF", "oisF", "AP")


class EdgeScores:
    """Collects predicted edge maps with the boundaries they are scored against.

    Both are kept as PNGs, about 50 KB an image, because worker processes match them at the end.

    Args:
        source: The split that the images are from.
        rule: The rules for edges, and the images that count.
        store: File that keeps the counts of each image, from which an interrupted evaluation continues; see
            `boundaries.count_images`. None = counts are not kept.
        num_workers: Number of processes; None = one for each core.
    """

    def __init__(self, source: Split, rule: EdgeRule, *, store: Path | None = None, num_workers: int | None = None):
        self._source, self._rule = source, rule
        self._store, self._num_workers = store, num_workers
        self._images: list[boundaries.Image] = []
        boundaries.compile_loops()  # it looks for compiled code on the disk, so it is called once, not for each image

    def encode(self, index: int, record: Mapping[str, Any], prediction: np.ndarray) -> Stats:
        """Returns the input of `add` for an image: two PNGs, or nothing where the image is not scored.

        Predictions in pixels without a label do not count.

        Args:
            index: Position of the image in the split.
            record: Decoded record with the label of its edges.
            prediction: Prediction as it is stored, uint8 `[H, W, 1]` at the image's size.
        """
        if not self._rule.scored(record["id"]):
            return {}
        boundary = self._source.boundary(index, record["edge"])
        counted = np.where(record["edge"] == IGNORE, 0, prediction).astype(np.uint8)
        pngs = {"prediction": counted, "truth": boundary[..., None].astype(np.uint8)}
        return {"id": np.array(record["id"])} | {
            name: np.frombuffer(pictures.encode_png(value), np.uint8) for name, value in pngs.items()
        }

    def add(self, encoded: Stats) -> None:
        """Adds an image."""
        if encoded:
            prediction, truth = (encoded[name].tobytes() for name in ("prediction", "truth"))
            self._images.append(boundaries.Image(str(encoded["id"]), prediction, truth, kind="boundaries"))

    def compute(self) -> Result:
        """Returns the scores of all images added, see `boundaries.Scores`; NaN where there are none."""
        if not self._images:
            return dict.fromkeys(_SCORES, float("nan"))
        return asdict(boundaries.score(self._counts, self._rule.boundary_protocol()))

    def bootstrap(self, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
        """Returns confidence intervals of odsF, oisF and AP, see `metrics.core.intervals`."""
        if not self._images:
            return {}
        counts, protocol = self._counts, self._rule.boundary_protocol()

        def scores(images: np.ndarray) -> Result:
            drawn = boundaries.BoundaryCounts(*(value[images] for value in vars(counts).values()))
            drawn_scores = boundaries.score(drawn, protocol)
            return {name: getattr(drawn_scores, name) for name in _SCORES}

        return intervals(scores, len(self._images), resamples, seed)

    @cached_property
    def _counts(self) -> boundaries.BoundaryCounts:
        protocol = self._rule.boundary_protocol()
        return boundaries.count_images(self._images, protocol, store=self._store, num_workers=self._num_workers)
