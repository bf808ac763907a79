"""The training split with the labels that training uses, which may be a part of those that the data set has."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import tensorflow_datasets as tfds

from mtl_jax.data import datasets, label_fraction
from mtl_jax.data.split import Split

TRAIN = "train"


class TrainingLabels:
    """The labels of the training split that `data.label_fraction` keeps.

    Args:
        builder: Builder of the prepared data set.
        tasks: Tasks that are trained.
        fractions: {task: fraction of its labels}, see `label_fraction.fraction_of`.
        images: Key of `label_fraction.LABEL_IMAGES`.
        seed: Seed of the choice.
        looked_at: Tasks whose labels the augmentation looks at. They are read, too, as long as all labels are kept.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        tasks: Sequence[str],
        fractions: Mapping[str, float],
        images: str,
        seed: int,
        looked_at: Sequence[str] = (),
    ):
        self._builder, self._tasks = builder, tuple(tasks)
        self._fractions, self._images, self._seed = fractions, images, seed
        self._looked_at = tuple(looked_at)

    def open(self, names: Sequence[str] = (), *, every_image: bool = False) -> Split:
        """Returns the training split as training reads it.

        Images without a label of any trained task are left out where there is one task, as always, and where labels
        were left out: no loss counts these images.

        Args:
            names: Tasks whose labels are read; by default the trained ones. Of other tasks all labels are there.
            every_image: True to keep the images without a label.

        Raises:
            ValueError, OSError: See `datasets.open_split` and `label_fraction.choose`.
        """
        names = tuple(names) or self._tasks
        if label_fraction.keeps_all(self._fractions, self._images):
            only_labelled = len(self._tasks) == 1 and not every_image
            return datasets.open_split(self._builder, TRAIN, names, only_labelled=only_labelled, also=self._looked_at)
        there = datasets.labelled_positions(self._builder, TRAIN, names)
        kept = {task: self._kept.get(task, frozenset(positions)) for task, positions in there.items()}
        source = datasets.open_split(self._builder, TRAIN, names).with_labels(kept)
        return source if every_image else source.subset(sorted(set().union(*self._kept.values())))

    def counts(self) -> dict[str, int]:
        """Returns {trained task: number of images with its label}."""
        return {task: len(positions) for task, positions in self._kept.items()}

    @cached_property
    def _kept(self) -> dict[str, frozenset[int]]:
        """{trained task: positions of the images that keep its label}."""
        labelled = datasets.labelled_positions(self._builder, TRAIN, self._tasks)
        if label_fraction.keeps_all(self._fractions, self._images):
            return {task: frozenset(positions) for task, positions in labelled.items()}
        ids = datasets.open_split(self._builder, TRAIN, ()).ids()
        return label_fraction.choose(ids, labelled, self._fractions, self._images, self._seed)
