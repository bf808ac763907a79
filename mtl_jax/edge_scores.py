"""Edges by the final protocol: odsF, oisF and AP of a data set's predictions, collected image by image."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from mtl_jax import boundaries
from mtl_jax.data import files
from mtl_jax.data.datasets import Split
from mtl_jax.metrics import Result
from mtl_jax.protocol import EdgeRule


class EdgeScores:
    """Collects predicted edge maps with the boundaries they are scored against.

    Both are kept as PNGs, about 50 KB an image, because matching is left to worker processes at the end.

    Args:
        source: the split the images are from.
        family: label conventions of its records, a key of `records.CONVENTIONS`.
        rule: how, and which images.
        store: file for each image's counts, from which an interrupted evaluation continues; see
            `boundaries.count_images`.
        num_workers: processes; None = one for each core.
    """

    def __init__(
        self, source: Split, family: str, rule: EdgeRule, *, store: Path | None = None, num_workers: int | None = None
    ):
        self._source, self._family, self._rule = source, family, rule
        self._store, self._num_workers = store, num_workers
        self._images: list[boundaries.Image] = []

    def update(self, index: int, image_id: str, prediction: np.ndarray) -> None:
        """Adds an image.

        Args:
            index: its position in the split.
            image_id: its id.
            prediction: as it is stored, uint8 `[H, W, 1]` at the image's size.
        """
        if not self._rule.scored(image_id):
            return
        boundary = self._source.boundary(index, self._family)
        if boundary is not None:
            truth = files.png(boundary[..., None].astype(np.uint8))
            self._images.append(boundaries.Image(image_id, files.png(prediction), truth, kind="boundaries"))

    def counts(self) -> boundaries.Counts | None:
        """The counts of all images added; None without any."""
        if not self._images:
            return None
        protocol = self._rule.boundary_protocol()
        return boundaries.count_images(self._images, protocol, store=self._store, num_workers=self._num_workers)

    def compute(self, counts: boundaries.Counts | None) -> Result:
        """The scores of counts, see `boundaries.Scores`; NaN where there is nothing to score."""
        if counts is None:
            return dict.fromkeys(("odsF", "oisF", "AP"), float("nan"))
        return asdict(boundaries.score(counts, self._rule.boundary_protocol()))
