"""The batches of an experiment: those that it trains on, and those that it is evaluated on."""

from collections.abc import Iterator

import jax

from mtl_jax.data import loader
from mtl_jax.data.shared_memory import Batch
from mtl_jax.data.split import Split
from mtl_jax.experiment import Experiment


def train_batches(run: Experiment, source: Split) -> loader.TrainBatches:
    """Returns the endless iterator over the training batches of this process, see `loader.train_batches`.

    Args:
        run: The experiment.
        source: Records of the training split.
    """
    data, train = run.config.data, run.config.train
    return loader.train_batches(
        source,
        conventions=run.conventions,
        tasks=run.all_tasks,
        recipe=run.recipe,
        size=run.image_size,
        border=data.border,
        batch_size=train.batch_size,
        seed=train.seed,
        num_workers=data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        skip_corrupt=data.skip_corrupt,
    )


def val_batches(
    run: Experiment,
    source: Split,
    batch_size: int,
    *,
    labels: bool = True,
    few: bool = False,
) -> Iterator[Batch]:
    """Returns the iterator over the validation batches of this process, see `loader.val_batches`.

    Args:
        run: The experiment.
        source: Records of a split.
        batch_size: Number of images of a global batch.
        labels: False for batches without the labels of the main tasks.
        few: True for few images, which are read when they are asked for, without worker processes.
    """
    delivery = {"num_workers": 0, "prefetch": 0} if few else {"num_workers": run.config.data.num_workers}
    return loader.val_batches(
        source,
        conventions=run.conventions,
        tasks=run.main_tasks if labels else (),
        recipe=run.recipe,
        size=run.image_size,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **delivery,
    )


def describe(run: Experiment, source: Split) -> str:
    """Describes a training batch for the warning that none comes, with what may be stuck."""
    workers = run.config.data.num_workers
    readers = f"{workers} worker processes" if workers else "a thread of this process"
    return f"batch of {source.name}, which {readers} read from {source.path} (a slow or lost disk?)"
