"""Labels that a trained model, the teacher, gives to images, as a folder data set for the training of another model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mtl_jax import tasks as task_table
from mtl_jax.data.folder_writer import FolderWriter
from mtl_jax.data.placing import Placement
from mtl_jax.data.split import Split
from mtl_jax.experiment import Experiment
from mtl_jax.inference import maps, predict
from mtl_jax.inference.maps import Map
from mtl_jax.inference.model import Finish, Model
from mtl_jax.inference.options import PredictOptions
from mtl_jax.inference.predict import Sample
from mtl_jax.labels import Conventions

TRAIN, VAL = "train", "val"
FILE = "file"  # entry of a sample with the content of the image's file


# How images get to the network: smaller ones are not enlarged where the teacher learned from them as they are.
_RESIZES: Mapping[Placement, str] = {"stretch": "fit", "pad": "pad"}


@dataclass
class Written:
    """The result of `save_labels`.

    Attributes:
        folder: The folder.
        images: {split: number of its images}.
        predicted: {task: number of training images with a label of the teacher}.
        real: {task: number of training images with a label of the data set}.
        labelled: {task: share of the pixels of the teacher's labels that have a value}.
    """

    folder: Path
    images: dict[str, int]
    predicted: dict[str, int] = field(default_factory=dict)
    real: dict[str, int] = field(default_factory=dict)
    labelled: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Labels:
    """The labels of one image.

    Attributes:
        key: Id of the image.
        real: Tasks whose label is that of the data set.
        shares: {task: share of the pixels with a value} of the teacher's labels; labels without a value are left out.
    """

    key: str
    real: Sequence[str]
    shares: Mapping[str, float]


def default_resize(run: Experiment) -> str:
    """Returns the option `resize` of prediction by which a teacher sees images at the scale that it learned from."""
    return _RESIZES[run.recipe.placement]


def file_samples(paths: Sequence[Path], unreadable: list[str]) -> Iterator[Sample]:
    """Yields the images in files, as `predict.file_samples`, with the content of each file."""
    by_stem = {path.stem: path for path in paths}
    for sample in predict.file_samples(paths, unreadable):
        yield {**sample, FILE: by_stem[sample["id"]].read_bytes()}


def split_samples(source: Split, run: Experiment, tasks: Sequence[str], limit: int = 0) -> Iterator[Sample]:
    """Yields the images of a split with their labels, as `predict.split_samples`, and with the content of each file."""
    samples = predict.split_samples(source, run.conventions, tasks, limit)
    for index, sample in enumerate(samples):
        yield {**sample, FILE: _content(source, index)}


def save_labels(
    model: Model,
    samples: Iterable[Sample],
    val_source: Split,
    run: Experiment,
    out: Path,
    options: PredictOptions | None = None,
    *,
    confidence: float = 0.0,
) -> Written:
    """Predicts, and writes a folder data set whose training images have the predictions as labels.

    A label that a sample has already is kept. The validation images are those of the teacher's data set, with their
    real labels, so that scores on them mean what they meant for the teacher. The data set can be used once this
    function has returned; a folder without `dataset.toml` is incomplete.

    Args:
        model: The teacher.
        samples: Training images, of `file_samples` or `split_samples`, with the labels that are kept.
        val_source: Validation images.
        run: The experiment whose data set the validation images are from.
        out: The folder, which must not exist or be empty.
        options: Options of prediction; None = the defaults, with `default_resize`.
        confidence: Least probability of a label's value, from 0 to below 1; pixels below it have no label. It concerns
            the tasks that predict probabilities: classes, saliency, edges.

    Raises:
        FileExistsError: The folder has files in it.
        ValueError: No pixel of a task is as probable, an id cannot be the name of a file, a training image has the id
            of a validation image, or `confidence` is out of range.
        OSError: A file cannot be written.
    """
    if not 0 <= confidence < 1:
        raise ValueError(f"the least probability of labels is {confidence}; give a number from 0 to below 1")
    names = {task: tuple(map(str, range(number))) for task, number in run.channels.items()}
    names |= maps.class_names(run)
    writer = FolderWriter(out, run.image_size, names, model.tasks, run.conventions)
    reserved = frozenset(val_source.ids())
    chosen = options or PredictOptions(resize=default_resize(run))
    predicted = model.stream(samples, predict.image_of, chosen, confidence=True)
    work = partial(_label, writer, confidence, reserved)
    labels = list(predict.in_threads(tqdm(predicted, unit="image"), work))
    written = _summary(writer.root, [each for each in labels if each.real or each.shares], model.tasks)
    if lost := [task for task in model.tasks if not written.predicted[task] and not written.real[task]]:
        raise ValueError(
            f"no pixel of {', '.join(lost)} is predicted with a probability of at least {confidence:g}; {writer.root} "
            "is incomplete: delete it, and give a smaller --save_labels_confidence"
        )
    val = list(_write_val(writer, val_source, run, model.tasks))
    train = [each.key for each in labels if each.real or each.shares]
    writer.finish({TRAIN: train, VAL: val})
    written.images = {TRAIN: len(train), VAL: len(val)}
    return written


def _label(
    writer: FolderWriter, confidence: float, reserved: frozenset[str], sample: Sample, finish: Finish
) -> _Labels:
    """Writes an image with its labels."""
    if sample["id"] in reserved:
        raise ValueError(
            f"the image {sample['id']!r} has the id of a validation image; give the file another name, or another split"
        )
    predicted = finish()
    real = _real_labels(sample, predicted, writer.conventions)
    labels, shares = dict(real), {}
    for task in (task for task in predicted if task not in sample):
        label = _teacher_label(predicted[task], confidence)
        share = float(predicted[task].kind.labelled(label).mean())
        if share:
            labels[task], shares[task] = label, share
    if labels:
        writer.write(sample["id"], sample[FILE], sample["image"], labels)
    return _Labels(sample["id"], tuple(real), shares)


def _teacher_label(one: Map, confidence: float) -> np.ndarray:
    """Returns a map as a canonical label, without the pixels whose value is less probable."""
    label = one.kind.as_label(one.decided, one.conventions)
    if one.confidence is not None:
        label[one.confidence < confidence] = one.kind.void
    return label if _is_label(one.task, label, one.conventions) else np.full_like(label, one.kind.void)


def _real_labels(sample: Sample, tasks: Iterable[str], conventions: Conventions) -> dict[str, np.ndarray]:
    """Returns {task: label} of the tasks of which a sample has a label."""
    return {task: sample[task] for task in tasks if task in sample and _is_label(task, sample[task], conventions)}


def _is_label(task: str, label: np.ndarray, conventions: Conventions) -> bool:
    """Returns False for a label that, by the conventions of its data set, stands for an image without a label."""
    labelled = task_table.get(task).kind.labelled(label)
    return task not in conventions.empty_is_unlabelled or bool(label[labelled].any())


def _write_val(writer: FolderWriter, source: Split, run: Experiment, tasks: Sequence[str]) -> Iterator[str]:
    """Writes the validation images with their real labels, and yields the ids of those that have a label."""
    samples = split_samples(source, run, tasks)
    for sample in tqdm(samples, "validation images", len(source), unit="image"):
        if labels := _real_labels(sample, tasks, run.conventions):
            writer.write(sample["id"], sample[FILE], sample["image"], labels)
            yield sample["id"]


def _content(source: Split, index: int) -> bytes | None:
    """Returns the content of the file of a record's image, None where the record holds an array."""
    image = source[index]["image"]
    return bytes(image) if isinstance(image, bytes) else None


def _summary(folder: Path, labels: Sequence[_Labels], tasks: Sequence[str]) -> Written:
    written = Written(folder, {TRAIN: len(labels)})
    for task in tasks:
        shares = [each.shares[task] for each in labels if task in each.shares]
        written.predicted[task], written.real[task] = len(shares), sum(task in each.real for each in labels)
        written.labelled[task] = float(np.mean(shares)) if shares else 0.0
    return written
