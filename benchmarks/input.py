"""The input pipeline beside a plain PyTorch DataLoader that reads the original files.

The images are rendered scenes at full size in the original file formats. `mtl_jax.data.train_batches` reads and
augments them from the prepared data set, a `torch.utils.data.DataLoader` from the files (parity/reference/input.py), in
turns. PASCAL's files do not hold edges, human parts and trusted normals. The DataLoader derives them for every sample,
mtl_jax once when the data set is built; a third row therefore shows the DataLoader with every label stored as it is
used (.npy). The DataLoader delivers normalised images; mtl_jax delivers bytes, which the training step normalises on
the device. Processor time is that of all processes together, and "per core" are images per second of processor time.
Without worker processes mtl_jax works in two threads and the DataLoader in one. Linux only.
"""

import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtl_jax import images
from mtl_jax.data import augmentation, catalogue, datasets, loader
from mtl_jax.data.rendered import release_files

# Largest differences of the delivered maps, from roundings in the normalisation of images and the rotation of normals.
TOLERANCE = {"image": 1e-6, "normals": 1e-5}
OURS, TORCH, TORCH_STORED = "mtl_jax", "DataLoader, original files", "DataLoader, labels as .npy"


@dataclass(frozen=True)
class Case:
    """A data set with its augmentation.

    Attributes:
        family: Key of `catalogue.DATASETS`, and of its conventions.
        builder: TFDS name.
        recipe: Name in `augmentation.RECIPES`.
        reader: Name of the function of parity.reference.input that reads the original files.
        write: Function (folder, {split: ids}, height=, width=) that writes the original files.
        size: (height, width) of the written images in pixels.
    """

    family: str
    builder: str
    recipe: str
    reader: str
    write: Callable[..., Path]
    size: tuple[int, int]


CASES = {
    "nyud_astmt": Case(
        "nyud",
        "nyud_mt/astmt_subset",
        "astmt",
        "nyud_astmt",
        lambda folder, ids, **size: release_files.write_nyud(folder, "astmt", ids, **size),
        (480, 640),
    ),
    "nyud_survey": Case(
        "nyud",
        "nyud_mt/survey_subset",
        "survey",
        "nyud_survey",
        lambda folder, ids, **size: release_files.write_nyud(folder, "survey", ids, **size),
        (480, 640),
    ),
    "pascal": Case("pascal", "pascal_mt/context_subset", "astmt", "pascal", release_files.write_pascal, (375, 500)),
}


@dataclass(frozen=True)
class Settings:
    """The amount of work that is measured.

    Attributes:
        images: Number of images in each data set.
        batch_size: Number of images in a batch.
        batches: Number of batches timed in each repeat.
        repeats: Number of repeats, of which the median is reported.
        scale: Factor on the sides of the images.
    """

    images: int = 32
    batch_size: int = 8
    batches: int = 12
    repeats: int = 3
    scale: float = 1.0


@dataclass
class Row:
    """The measurements of one loader in all repeats: images per second, and processor seconds per image."""

    recipe: str
    loader: str
    workers: int
    rates: list[float]
    seconds: list[float]
    cores: list[float]

    def summary(self) -> dict[str, Any]:
        rate, seconds, cores = map(statistics.median, (self.rates, self.seconds, self.cores))
        return {**asdict(self), "rate": rate, "cpu_ms": 1e3 * seconds, "used_cores": cores, "per_core": 1 / seconds}


def measure(
    recipes: Sequence[str], workers: Sequence[int], settings: Settings, reference: Any, data_dir: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Measures loaders, in turns.

    Args:
        recipes: Keys of `CASES`.
        workers: Numbers of worker processes.
        settings: Amount of work.
        reference: The module parity.reference.input; None = only mtl_jax is measured.
        data_dir: Folder that keeps the files for the next time; None = a temporary folder.

    Returns:
        (row for each recipe, loader and number of workers, {recipe: {map: largest deviation from PyTorch}}).

    Raises:
        OSError: The system has no /proc.
        ValueError: The two sides deliver different values.
    """
    if not Path("/proc/self/stat").exists():
        raise OSError("the processor time of other processes is read from /proc, which this system does not have")
    rows, deviations = [], {}
    with contextlib.ExitStack() as exits:
        folder = Path(data_dir or exits.enter_context(tempfile.TemporaryDirectory())).expanduser()
        for name in dict.fromkeys(recipes):
            case = folder / f"{name}_{settings.images}_{settings.scale:g}"
            prepared = _Prepared(name, case, settings, reference)
            deviations[name] = prepared.deviations()
            rows += prepared.measure(workers)
    return [row.summary() for row in rows], deviations


class _Prepared:
    """The files of a case, their built data set and the loaders."""

    def __init__(self, name: str, folder: Path, settings: Settings, reference: Any):
        self.name, self.case, self.settings, self.reference = name, CASES[name], settings, reference
        folder.mkdir(parents=True, exist_ok=True)
        height, width = (round(side * settings.scale) for side in self.case.size)
        self.ids = {"train": [f"{i:06d}" for i in range(settings.images)], "val": [f"{settings.images:06d}"]}
        written = folder / "written"
        if not written.exists():
            self.case.write(folder, self.ids, height=height, width=width)
            written.touch()
        (self.root,) = folder.glob("*_MT")
        builder = datasets.prepare(self.case.builder, folder / "tfds", self.root)
        self.source = datasets.open_split(builder, "train")
        dataset = catalogue.get(self.case.family)
        self.tasks = dataset.tasks
        delivered_height, delivered_width = (round(side * settings.scale) for side in dataset.image_size)
        self.size = (delivered_height, delivered_width)
        self.datasets: dict[str, Any] = {}
        if reference is not None:
            read, survey = getattr(reference, self.case.reader), self.case.recipe == "survey"
            stored = folder / "stored"
            if not stored.exists():
                reference.store_decoded(read, self.root, self.ids["train"], stored)
            ids = self.ids["train"]
            self.datasets = {
                TORCH: reference.Files(read, self.root, ids, self.size, survey),
                TORCH_STORED: reference.Files(reference.decoded, stored, ids, self.size, survey),
            }

    def deviations(self) -> dict[str, float]:
        """Returns {map: largest difference between the two sides with equal augmentation}.

        Raises:
            ValueError: A map differs by more than roundings.
        """
        worst: dict[str, float] = {}
        with self._batches(num_workers=0) as batches:
            batch, draws = next(batches), batches.draws(0)
        batch["image"] = images.normalise(batch["image"])
        for row, (position, drawn) in enumerate(draws):
            for dataset in self.datasets.values():
                for task, value in dataset[self._item(position, drawn)].items():
                    difference = np.abs(batch[task][row] - value.numpy().transpose(1, 2, 0))
                    worst[task] = max(worst.get(task, 0.0), float(difference.max()))
        if wrong := {task: value for task, value in worst.items() if value > TOLERANCE.get(task, 0)}:
            raise ValueError(f"{self.name}: mtl_jax and PyTorch differ: {wrong}; allowed are {TOLERANCE}, else nothing")
        return worst

    def measure(self, workers: Sequence[int]) -> list[Row]:
        rows = [Row(self.name, kind, count, [], [], []) for count in workers for kind in (OURS, *self.datasets)]
        for _ in range(self.settings.repeats):
            for row in rows:
                opened = self._batches(row.workers) if row.loader == OURS else self._torch(row)
                with opened as batches:
                    seconds, processor = _timed(batches, row.workers, self.settings.batches)
                del batches  # ends the worker processes of the DataLoader
                count = self.settings.batches * self.settings.batch_size
                row.rates.append(count / seconds)
                row.seconds.append(processor / count)
                row.cores.append(processor / seconds)
        return rows

    def _batches(self, num_workers: int) -> contextlib.closing[loader.TrainBatches]:
        batches = loader.train_batches(
            self.source,
            conventions=catalogue.FAMILIES[self.case.family],
            tasks=self.tasks,
            recipe=self.case.recipe,
            size=self.size,
            batch_size=self.settings.batch_size,
            seed=0,
            num_workers=num_workers,
        )
        return contextlib.closing(batches)

    @contextlib.contextmanager
    def _torch(self, row: Row) -> Iterator[Iterator[Any]]:
        rng = np.random.default_rng(0)
        # More items than are taken, so that the workers are as busy at the end as before.
        count = (_warm_up(row.workers) + self.settings.batches + 2 + 4 * row.workers) * self.settings.batch_size
        order = itertools.islice(itertools.cycle(rng.permutation(len(self.source)).tolist()), count)
        items = [self._item(position, augmentation.draw(self.case.recipe, rng)) for position in order]
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the worker processes share the cores, as usual with a DataLoader
        batches = self.reference.load(self.datasets[row.loader], self.settings.batch_size, items, row.workers)
        try:
            yield batches
            for _ in batches:  # a worker process of a DataLoader may abort if it is ended at work
                pass
        finally:
            cv2.setNumThreads(before)

    def _item(self, position: int, drawn: augmentation.Draw) -> Any:
        flip, (angle, scale), _ = drawn
        return self.reference.Item(position, flip, angle, scale)


def _warm_up(workers: int) -> int:
    """Returns the number of batches until all workers have started and filled their queues."""
    return 1 + 4 * workers


def _timed(batches: Iterator[Any], workers: int, count: int) -> tuple[float, float]:
    """Returns (seconds, processor seconds of all processes) of the timed batches."""
    for _ in range(_warm_up(workers)):
        next(batches)
    started, processor = time.perf_counter(), _processor_seconds()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - started, _processor_seconds() - processor


def _processor_seconds() -> float:
    """Returns the processor seconds of this process and its running worker processes."""
    ticks = 0
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table; ratios compare images per core, and images per second with one worker process."""
    lines = [
        "| recipe | loader | workers | images/s (spread) | cores | CPU ms/image | per core | mtl_jax is | scaling |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    find = {(row["recipe"], row["loader"], row["workers"]): row for row in rows}
    for row in rows:
        ours = find[row["recipe"], OURS, row["workers"]]
        single = find.get((row["recipe"], row["loader"], 1))
        scaling = f"{row['rate'] / single['rate']:.2f}x" if single and row["workers"] > 1 else ""
        ratio = f"{ours['per_core'] / row['per_core']:.1f}x" if row is not ours else ""
        spread = f"{row['rate']:.1f} ({min(row['rates']):.1f} to {max(row['rates']):.1f})"
        numbers = f"{row['used_cores']:.2f} | {row['cpu_ms']:.1f} | {row['per_core']:.1f}"
        lines.append(
            f"| {row['recipe']} | {row['loader']} | {row['workers']} | {spread} | {numbers} | {ratio} | {scaling} |"
        )
    return "\n".join(lines)
