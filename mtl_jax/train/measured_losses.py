"""Losses with arguments that are measured on the labels of the training split, such as weights of classes."""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mtl_jax import config as configs
from mtl_jax import folders, losses, tasks
from mtl_jax.data import records, transforms
from mtl_jax.data.split import Split
from mtl_jax.experiment import Experiment
from mtl_jax.labels import IGNORE
from mtl_jax.losses import Frequencies, Objective
from mtl_jax.runtime import atomic_files, processes, workers

FREQUENCIES = "label_frequencies.json"  # file in a work directory
_MOST_THREADS = 8  # that decode labels
logger = logging.getLogger(__name__)


def objective(run: Experiment, source: Split, workdir: Path) -> Objective:
    """Returns the function that training minimises, with numbers in place of what its losses measure.

    How often each class occurs is counted when a run starts, by the first process, and stored in the work directory. A
    run that continues reads it there. All processes must call this function.

    Args:
        run: The experiment.
        source: The training split.
        workdir: The work directory of the run, which exists.

    Raises:
        ValueError: A label has an id without a class, or a file of weights has something else than numbers.
        FileNotFoundError: A file of weights does not exist.
        CorruptRecordError: A record cannot be read, and `data.skip_corrupt` is not set.
    """
    given = {task: run.config.losses.get(task, tasks.get(task).loss) for task in run.all_tasks}
    measured = [task for task, text in given.items() if losses.needs_measuring(text)]
    frequencies = _read_or_count(run, source, workdir, measured) if measured else {}
    channels = configs.num_channels(run.config, given)
    explicit = {}
    for task, text in given.items():
        explicit[task] = losses.with_numbers(text, frequencies.get(task))
        if explicit[task] != text:
            losses.check(explicit[task], task, channels[task])
            logger.info("losses.%s is %s, which stands for %s", task, text, explicit[task])
    return run.make_objective(explicit)


def count(run: Experiment, source: Split, names: Sequence[str]) -> dict[str, Frequencies]:
    """Counts how often each class occurs among the labels of tasks, as they are delivered but not augmented.

    Args:
        run: The experiment.
        source: The split.
        names: Tasks whose labels have classes.

    Raises:
        ValueError: A label has an id without a class.
        CorruptRecordError: A record cannot be read, and `data.skip_corrupt` is not set.
    """
    channels = configs.num_channels(run.config, names)
    kinds = {task: tasks.get(task).kind for task in names}

    def of_image(index: int) -> dict[str, np.ndarray]:
        """Returns {task: number of pixels of each class} of an image, without tasks that have no label there."""
        try:
            sample = source.labels(index, names, run.conventions)
        except records.CorruptRecordError:
            if not run.config.data.skip_corrupt:
                raise
            return {}
        labels = transforms.ignore_regions({task: sample[task] for task in names if task in sample}, run.conventions)
        return {task: kinds[task].count_classes(label, channels[task]) for task, label in labels.items()}

    nothing = {
        task: kind.count_classes(np.full((1, 1, kind.channels), IGNORE), channels[task]) for task, kind in kinds.items()
    }
    sums = {task: np.zeros((3, len(zeros)), np.int64) for task, zeros in nothing.items()}
    with ThreadPoolExecutor(min(workers.cpu_count(), _MOST_THREADS)) as pool:
        for of_tasks in pool.map(of_image, range(len(source))):
            for task, pixels in of_tasks.items():
                sums[task] += [pixels, pixels > 0, (pixels > 0) * pixels.sum()]
    return {task: Frequencies(*(tuple(row.tolist()) for row in rows)) for task, rows in sums.items()}


def _read_or_count(run: Experiment, source: Split, workdir: Path, names: Sequence[str]) -> dict[str, Frequencies]:
    """Returns the frequencies that the run has in its work directory, which are counted where they are not there."""

    def ask() -> str:
        path = workdir / FREQUENCIES
        stored = (
            json.loads(path.read_text(encoding="utf-8")) if folders.holds_checkpoint(workdir) and path.is_file() else {}
        )
        if lacking := [task for task in names if task not in stored]:
            logger.info("counting the labels of %s in %d images of %s", ", ".join(lacking), len(source), source.name)
            stored |= {task: asdict(each) for task, each in count(run, source, lacking).items()}
            atomic_files.write_json(path, stored)
        return json.dumps(stored)

    stored = json.loads(processes.first_says(ask))
    return {task: Frequencies(**{name: tuple(row) for name, row in stored[task].items()}) for task in names}
