"""Choice of the training images that keep their labels, to study learning from few labels.

The choice depends on the seed and on the ids of the records alone, neither on the order of reading nor on the number of
processes. Choices of one seed are nested: the images of the fraction 0.1 are among those of the fraction 0.2.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

EVERY_TASK = "all"  # name that stands for the tasks that have no fraction of their own

Labelled = Mapping[str, Collection[int]]  # {task: positions of the images with its label}


def _same(ids: Sequence[str], labelled: Labelled, seed: int) -> dict[str, list[int]]:
    order = _order(range(len(ids)), ids, seed, "")
    return {task: [position for position in order if position in there] for task, there in _sets(labelled).items()}


def _independent(ids: Sequence[str], labelled: Labelled, seed: int) -> dict[str, list[int]]:
    return {task: _order(positions, ids, seed, task) for task, positions in labelled.items()}


def _one_label(ids: Sequence[str], labelled: Labelled, seed: int) -> dict[str, list[int]]:
    sets = _sets(labelled)
    assigned: dict[str, list[int]] = {task: [] for task in labelled}
    for position in _order(range(len(ids)), ids, seed, ""):
        there = [task for task in sets if position in sets[task]]
        if there:
            assigned[min(there, key=lambda task: _draw(seed, task, ids[position]))].append(position)
    return assigned


# {value of `data.label_images`: function (ids, labelled positions, seed) -> {task: positions that may keep its label}};
# the positions stand in the order in which they are chosen.
LABEL_IMAGES: Mapping[str, Callable[[Sequence[str], Labelled, int], dict[str, list[int]]]] = {
    "same": _same,
    "independent": _independent,
    "one_label": _one_label,
}


def fraction_of(fractions: Mapping[str, float], task: str) -> float:
    """Returns the fraction of a task's labels that are kept: its own, that of "all", or 1."""
    return fractions.get(task, fractions.get(EVERY_TASK, 1.0))


def keeps_all(fractions: Mapping[str, float], images: str) -> bool:
    """Returns True if `choose` would keep every label."""
    return images != "one_label" and all(fraction == 1 for fraction in fractions.values())


def choose(
    ids: Sequence[str], labelled: Labelled, fractions: Mapping[str, float], images: str, seed: int
) -> dict[str, frozenset[int]]:
    """Returns {task: positions of the images that keep its label}.

    Args:
        ids: Ids of the training images.
        labelled: {task: positions of the images with its label}.
        fractions: {task: fraction of these images, above 0 and at most 1}, see `fraction_of`.
        images: Key of `LABEL_IMAGES`. "same": the tasks keep labels on the same images. "independent": each task keeps
            them on images of its own. "one_label": an image keeps the label of one task, which is drawn for each image,
            and the fraction is that of the images drawn for the task.
        seed: Seed of the choice.

    Raises:
        ValueError: No image of a task keeps its label, or two images have one id.
    """
    if repeated := [key for key, count in Counter(ids).items() if count > 1]:
        raise ValueError(
            f"data.label_fraction chooses images by their ids, and {len(repeated)} ids stand for several training "
            f"images, for example {repeated[0]!r}; give every image an id of its own"
        )
    kept = {}
    for task, order in LABEL_IMAGES[images](ids, labelled, seed).items():
        fraction = fraction_of(fractions, task)
        number = round(fraction * len(order))
        if labelled[task] and not number:
            raise ValueError(
                f"data.label_fraction keeps {fraction:g} of the labels of {task}, which are {len(order)}, and that is "
                "no image; give a greater fraction"
            )
        kept[task] = frozenset(order[:number])
    return kept


def _sets(labelled: Labelled) -> dict[str, frozenset[int]]:
    return {task: frozenset(positions) for task, positions in labelled.items()}


def _order(positions: Iterable[int], ids: Sequence[str], seed: int, task: str) -> list[int]:
    return sorted(positions, key=lambda position: (_draw(seed, task, ids[position]), ids[position]))


def _draw(seed: int, task: str, key: str) -> bytes:
    """Returns what stands for a random number: a hash of the seed, the task and the id of an image."""
    return hashlib.sha256(f"{seed}\0{task}\0{key}".encode()).digest()
