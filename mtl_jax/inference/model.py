"""A trained model in use: one call from images to maps."""

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from flax import nnx

from mtl_jax import experiment as experiments
from mtl_jax import folders
from mtl_jax import tasks as task_table
from mtl_jax.config import EMA, WEIGHTS, Config
from mtl_jax.data import prefetch
from mtl_jax.evaluation import result_files
from mtl_jax.experiment import Experiment
from mtl_jax.inference import hub, maps, model_folder, windows
from mtl_jax.inference.image_input import ImageLike, as_image
from mtl_jax.inference.maps import Maps
from mtl_jax.inference.network import Network
from mtl_jax.inference.options import WINDOWS, PredictOptions
from mtl_jax.inference.placement import PLACEMENTS, Placed
from mtl_jax.train import history, restore
from mtl_jax.train.history import History
from mtl_jax.train.state import TrainState

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Finish = Callable[[], Maps]


class Model:
    """A trained model for images of any size and origin, which predicts maps at the size of each; `load` makes one.

    Evaluation and reports, which read the images of a split in batches, use `mtl_jax.inference.restored.Restored`.

    Args:
        experiment: The experiment that the model is from.
        state: State with the model alone, whole on all devices.
        origin: Where the model comes from, for people.
        read_results: Function that returns the scores of the model, a report of `mtl_jax.inference.evaluate`; None
            where it was not evaluated. It is called when the scores are first asked for.
        read_history: Function that returns how the weights came about. It is called when the model is saved.

    Attributes:
        experiment: The experiment that the model is from.
        tasks: The tasks that it predicts.
        image_size: (height, width) of the images that it learned from, in pixels.
        origin: Where the model comes from, for people.
    """

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        *,
        origin: str,
        read_results: Callable[[], result_files.Report | None],
        read_history: Callable[[], History],
    ):
        self.experiment, self.origin = experiment, origin
        self._read_results, self._read_history = read_results, read_history
        self.tasks, self.image_size = experiment.main_tasks, experiment.image_size
        self._state = state
        self._kinds = {task: task_table.get(task).kind for task in self.tasks}

    def __repr__(self) -> str:
        model = self.experiment.config.model
        return f"Model({model.name}, {model.backbone}, tasks: {', '.join(self.tasks)}, from {self.origin})"

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """{task: names of its classes} for the tasks that predict class ids."""
        return maps.class_names(self.experiment)

    @cached_property
    def results(self) -> result_files.Report | None:
        """The scores of the model; None where it was not evaluated or, with a warning, where they cannot be read."""
        try:
            return self._read_results()
        except (ValueError, OSError) as error:
            logger.warning("the model from %s is without scores: %s", self.origin, error)
            return None

    @property
    def net(self) -> nnx.Module:
        """The network itself, from normalised images `[B, H, W, 3]` to `Outputs`."""
        return self._state.model()

    @overload
    def __call__(
        self, images: list[Any] | tuple[Any, ...], *, options: PredictOptions | None = None, **changes: Any
    ) -> list[Maps]: ...

    @overload
    def __call__(self, images: ImageLike, *, options: PredictOptions | None = None, **changes: Any) -> Maps: ...

    def __call__(self, images: Any, *, options: PredictOptions | None = None, **changes: Any) -> Maps | list[Maps]:
        """Predicts the maps of an image, or of each image of a list.

        Args:
            images: An image, or a list of images. An image is a path, a PIL image, or an array of uint8, `[H, W, 3]`
                (RGB) or `[H, W]` (grey).
            options: Options of prediction.
            **changes: Options by their names, in place of those of `options`, for example `flip=True`.

        Returns:
            {task: its `Map`} for an image, a list of them for a list.

        Raises:
            TypeError: A value is no image, or there is no such option.
            ValueError: An image or an option is impossible.
            FileNotFoundError: A file is missing.
        """
        chosen = changed(options or PredictOptions(), changes)
        several = isinstance(images, list | tuple)
        predicted = [finish() for _, finish in self.stream(images if several else [images], as_image, chosen)]
        return predicted if several else predicted[0]

    def stream(
        self,
        items: Iterable[Item],
        image_of: Callable[[Item], np.ndarray],
        options: PredictOptions,
        *,
        confidence: bool = False,
    ) -> Generator[tuple[Item, Finish], None, None]:
        """Yields (item, function that returns its maps) for every item, in order.

        Items are taken, and their images made, in a thread while the network computes. The function resizes the
        predictions to the size of the image; it may be called in another thread.

        Args:
            items: Items, each with an image.
            image_of: Function from an item to its image, uint8 `[H, W, 3]`.
            options: Options of prediction.
            confidence: True to give the maps the probabilities of their values, see `Map.confidence`.

        Raises:
            ValueError: The network takes no images of the size that the options ask for.
        """
        source = iter(items)

        def produce() -> tuple[Item, np.ndarray]:
            item = next(source)
            return item, image_of(item)

        images = prefetch.ahead(produce, what="image")
        try:
            while chunk := list(itertools.islice(images, options.batch_size)):
                finishes = self._finishes([image for _, image in chunk], options, confidence)
                yield from ((item, finish) for (item, _), finish in zip(chunk, finishes, strict=True))
        finally:
            images.close()

    def _finishes(self, images: Sequence[np.ndarray], options: PredictOptions, confidence: bool) -> list[Finish]:
        """Returns for each of at most `options.batch_size` images the function that returns its maps."""
        if options.resize == WINDOWS:
            predicted = [
                windows.predict(image, self._network, self._kinds, options, confidence=confidence) for image in images
            ]
            return [partial(maps.of, self.experiment, *each) for each in predicted]
        place = PLACEMENTS[options.resize]
        placed = [place(image, self._network.size, self._network.multiple) for image in images]
        values: dict[int, dict[str, np.ndarray]] = {}
        shapes = [one.pixels.shape for one in placed]
        for shape in dict.fromkeys(shapes):
            indices = [i for i, other in enumerate(shapes) if other == shape]
            batch = self._network.values(np.stack([placed[i].pixels for i in indices]), options)
            values |= {i: {task: x[row] for task, x in batch.items()} for row, i in enumerate(indices)}
        return [
            partial(self._finish, values[i], placed[i], images[i].shape[:2], confidence) for i in range(len(images))
        ]

    def _finish(self, values: dict[str, np.ndarray], placed: Placed, size: tuple[int, int], confidence: bool) -> Maps:
        height, width = placed.content
        content = {task: values[task][:height, :width] for task in self._kinds}
        decided = {task: kind.decide_at(content[task], *size) for task, kind in self._kinds.items()}
        asked = self._kinds if confidence else {}
        return maps.of(
            self.experiment, decided, {task: kind.confidence_at(content[task], *size) for task, kind in asked.items()}
        )

    @cached_property
    def _network(self) -> Network:
        return Network(self.experiment, self._state)

    def save(self, folder: str | Path, *, license: str = "", author: str = "") -> Path:
        """Writes the model to a new folder that `load` reads, for sharing: configuration, weights and a model card.

        Args:
            folder: The folder, which must not exist or be empty.
            license: License of the weights, an identifier such as "apache-2.0"; empty = the card says that it is not
                stated.
            author: Who publishes the weights; empty = the card does not say it.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder has files in it.
            OSError: The files cannot be written.
        """
        return model_folder.write(
            Path(folder),
            self.experiment,
            self._state.model(),
            self._read_history(),
            self.results,
            license=license,
            author=author,
        )


def load(place: str | Path, step: str = result_files.BEST, weights: str = "") -> Model:
    """Loads a trained model. Neither its data set nor a folder of data sets is needed.

    Args:
        place: The work directory of a run; a folder that `Model.save` has written; or "hf://OWNER/NAME[@REVISION]",
            such a folder on the Hugging Face Hub, which needs the extra `hub`. A folder with checkpoints is a work
            directory. Its configuration may name modules, which are imported; a saved model imports nothing.
        step: Checkpoint of a work directory: "best", "latest" or the number of a step.
        weights: Weights of that checkpoint: "trained", or "ema" for their moving average. Empty = those that training
            evaluated.

    Raises:
        FileNotFoundError: The folder is missing, or is neither a work directory nor a saved model; or the run has no
            such checkpoint.
        ValueError: The weights do not fit the configuration, the checkpoint has no averaged weights, the folder has no
            steps or weights to choose from, or the extra `hub` is not installed.
    """
    if hub.is_address(str(place)):
        return _saved(hub.download(str(place)), str(place), step, weights)
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the work directory of a run, a folder of model.save, or "
            f"{hub.SCHEME}OWNER/NAME"
        )
    if folders.is_saved_model(folder):
        return _saved(folder, str(folder), step, weights)
    return from_run(experiments.load_config(folder), folder, step, weights)


def from_run(config: Config | Experiment, workdir: str | Path, step: str, weights: str = "") -> Model:
    """Returns the model of a run at one of its checkpoints.

    Args:
        config: The run's own experiment or configuration, `experiment.load_config(workdir)`.
        workdir: The work directory of the run.
        step: Checkpoint: "best", "latest" or the number of a step.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.

    Raises:
        FileNotFoundError: The run has no checkpoints, or no such step.
        DamagedError: The checkpoint's files are not whole.
        ValueError: The checkpoint does not fit the configuration, or has no such weights.
    """
    run = experiments.make(config)
    report = Path(workdir) / result_files.file_name(step, result_files.other_weights(run.config, weights))
    number, weights, state = restore.load(run, workdir, step, weights)

    def results() -> result_files.Report | None:
        content = _results(report)
        current = content is not None and result_files.is_of(content, number, weights)
        return content if current else None  # others are of an earlier one

    def made() -> History:
        return history.of_run(run, state.model(), Path(workdir), number, weights)

    averaged = f", {WEIGHTS[EMA]}" if weights == EMA else ""
    return Model(run, state, origin=f"{workdir}, step {number}{averaged}", read_results=results, read_history=made)


def _results(path: Path) -> result_files.Report | None:
    return result_files.read(path) if path.is_file() else None


def _saved(folder: Path, origin: str, step: str, weights: str) -> Model:
    if step != result_files.BEST:
        raise ValueError(f"step is {step!r}, and {origin} holds a single model; leave step out")
    if weights:
        raise ValueError(f"weights is {weights!r}, and {origin} holds a single model; leave weights out")
    experiment, state = model_folder.read(folder)
    return Model(
        experiment,
        state,
        origin=origin,
        read_results=partial(_results, folder / result_files.RESULTS),
        read_history=partial(history.read, folder / model_folder.HISTORY),
    )


def changed(options: PredictOptions, changes: dict[str, Any]) -> PredictOptions:
    """Returns the options with others in place of some.

    Raises:
        TypeError: There is no such option; the message lists those there are.
        ValueError: An option has an impossible value.
    """
    known = [each.name for each in fields(PredictOptions)]
    if unknown := [name for name in changes if name not in known]:
        raise TypeError(f"there is no option {unknown[0]!r} of prediction; the options are {', '.join(known)}")
    return replace(options, **changes)
