"""The base class of tfds builders that read original files: it finds and checks the files, and writes ArrayRecord."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from mtl_jax.data import fetch
from mtl_jax.data.staging import Staging, describe
from mtl_jax.labels.readers import Reading
from mtl_jax.runtime import atomic_files, messages

logger = logging.getLogger(__name__)

LABELLED = "labelled"  # field of a record with the names of its labelled tasks, and key of the metadata on all records
_LISTED = 20  # number of problems listed in an error; a file lists all of them


@dataclass(kw_only=True)
class FilesConfig(tfds.core.BuilderConfig):
    """A release of a data set, or a part of a release.

    Attributes:
        counts: Number of images in each split; None permits any number.
        source: Download of the archive; None if it cannot be downloaded.
    """

    counts: Mapping[str, int] | None = None
    source: fetch.Download | None = None


class FilesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base class of tfds builders that read files, and check every file of every image before they build anything.

    Record i of a split is image i in the list of the split. TensorFlow is not needed. A subclass defines `lists`,
    `labels`, `read_record` and `candidates`, and these attributes:

    Attributes:
        FOLDER: Name of the data set's folder, and stem of its archive.
        MARKER: File or folder in the data set's folder whose presence identifies it.
        DESCRIPTION: Description of the data set in one sentence.

    Args:
        num_workers: Number of processes that read files, see `workers.map_ordered`.
        file_format: File format of tfds for the records; None means ArrayRecord.
        kwargs: Further arguments of `tfds.core.DatasetBuilder`.
    """

    FOLDER: ClassVar[str]
    MARKER: ClassVar[str]
    DESCRIPTION: ClassVar[str]

    def __init__(self, *, num_workers: int | None = None, file_format: Any = None, **kwargs: Any):
        self._num_workers = num_workers
        super().__init__(file_format=file_format or tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

    def lists(self) -> Mapping[str, str]:
        """Returns {split: path of a file with one id in each line}, relative to the data set's folder."""
        raise NotImplementedError

    def ids(self, root: Path, problems: list[str]) -> dict[str, list[str]]:
        """Returns {split: ids of its images}, and appends problems with the lists to `problems`."""
        return {split: read_list(root, name, problems) for split, name in self.lists().items()}

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        """Returns {task: feature}, and a text feature `labelled` if not every image has all labels."""
        raise NotImplementedError

    def extra(self) -> Mapping[str, tfds.features.FeatureConnector]:
        """Returns {name: feature} for further fields of the records, besides the image and the labels."""
        return {}

    def read_record(self, root: Path) -> Callable[[str], Reading]:
        """Returns a function from an id to its record and the problems with its files; the function must pickle."""
        raise NotImplementedError

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        """Returns a function from an id to the paths of all files that `read_record` tries to read."""
        raise NotImplementedError

    def unlisted(self, root: Path, ids: Collection[str]) -> dict[str, list[str]]:
        """Returns {task: files of its labels that belong to none of the ids}, and logs a warning about them."""
        return {}

    def identity(self) -> list[str]:
        """Returns the names and versions on which the records depend, besides the files."""
        return [self.name, self.builder_config.name, str(self.version)]

    def find(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """Returns the folder with the files, which is given, unpacked or downloaded; see `fetch.locate`."""
        config = self.builder_config
        return fetch.locate(
            self.FOLDER,
            config.source,
            marker=self.MARKER,
            manual_dir=fetch.given_manual_dir(dl_manager, self.FOLDER),
            download_dir=Path(dl_manager.download_dir) / self.name / config.name.removesuffix("_subset"),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Builds the data set unless it is there. A new call continues an interrupted build.

        See `tfds.core.DatasetBuilder.download_and_prepare` for the arguments.

        Raises:
            ValueError: files are faulty; the message lists the problems.
            FileNotFoundError: the files cannot be found.
            OSError: a download failed.
        """
        super().download_and_prepare(**kwargs)
        shutil.rmtree(self._staging_folder, ignore_errors=True)

    @property
    def _staging_folder(self) -> Path:
        return Path(self._data_dir_root) / "staging" / "-".join((self.name, self.builder_config.name))

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3))
        features = {"id": tfds.features.Text(), "image": image, **self.labels(), **self.extra()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the loader shuffles
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        config = self.builder_config
        root = self.find(dl_manager)
        problems: list[str] = []
        ids = self.ids(root, problems)
        everything = list(chain.from_iterable(ids.values()))
        lists = " and ".join(dict.fromkeys(self.lists().values()))
        repeated = sorted(key for key, count in Counter(everything).items() if count > 1)
        problems += [f"id {key!r} is listed more than once in {lists}" for key in repeated]
        for split, expected in (config.counts or {}).items():
            if len(ids[split]) != expected:
                problems.append(
                    f"{self.lists()[split]} lists {len(ids[split])} images, expected {expected}; a part of the data "
                    f"set can be built as {self.name}/{self._subset()}"
                )
        staging = Staging(
            self._staging_folder,
            root,
            self.identity(),
            self.read_record(root),
            self.candidates(root),
        )
        problems += staging.fill(list(ids.values()), num_workers=self._num_workers)
        if not problems:
            problems += self._note_labelled(staging, ids, self.unlisted(root, everything))
        if problems:
            self._raise(problems, root)
        for line in describe(chain.from_iterable(map(staging.notes, ids.values()))):
            logger.warning("%s/%s: %s", self.name, config.name, line)
        return {split: self._generate_examples(split, staging, names) for split, names in ids.items()}

    def _generate_examples(
        self, split: str, staging: Staging, ids: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        records = tqdm(staging.records(ids), f"writing {split}", len(ids), unit="image")
        yield from enumerate(records)

    def _subset(self) -> str:
        return f"{self.builder_config.name}_subset"

    def _note_labelled(
        self, staging: Staging, ids: Mapping[str, Sequence[str]], unlisted: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Writes the metadata `labelled`: {task: {split: positions of the images with a label of the task}}.

        It contains the tasks for which some images have no label.

        Args:
            staging: The records.
            ids: Ids of each split.
            unlisted: Result of `unlisted`.

        Returns:
            The problems, one for each task of which no image has a label.
        """
        if LABELLED not in self.labels():
            return []
        positions: dict[str, dict[str, list[int]]] = {
            task: {split: [] for split in ids} for task in self.labels() if task != LABELLED
        }
        for split, names in ids.items():
            for position, record in enumerate(staging.records(names)):
                for task in record[LABELLED].split():
                    positions[task][split].append(position)
        everything = sum(len(names) for names in ids.values())
        self.info.metadata[LABELLED] = {
            task: splits for task, splits in positions.items() if sum(map(len, splits.values())) < everything
        }
        return [
            f"no image has a label of {task}; leave the task out, or correct where its files are"
            + (f" (what is there belongs to no image, for example {unlisted[task][0]})" if unlisted.get(task) else "")
            for task, splits in positions.items()
            if not any(splits.values())
        ]

    def _raise(self, problems: Sequence[str], root: Path) -> None:
        report = self._staging_folder / "problems.txt"
        atomic_files.write(report, "".join(f"{messages.printable(problem)}\n" for problem in problems))
        lines = list(problems[:_LISTED])
        if len(problems) > _LISTED:
            lines.append(f"and {len(problems) - _LISTED} more, listed in {report}")
        raise ValueError(
            f"{len(problems)} problem(s) with the files of {self.name} in {root}; nothing was built. Replace the files "
            "and build again; most of what was in order will not be read again:\n  " + "\n  ".join(lines)
        )


def png_feature() -> tfds.features.Image:
    """Returns the feature of a label map, uint8 `[H, W, 1]`, stored as PNG."""
    return tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png")


def float_feature(channels: int) -> tfds.features.Tensor:
    """Returns the feature of a label map, float32 `[H, W, channels]`, which ArrayRecord compresses losslessly."""
    return tfds.features.Tensor(shape=(None, None, channels), dtype=np.float32, encoding=tfds.features.Encoding.BYTES)


def read_list(root: Path, name: str, problems: list[str]) -> list[str]:
    """Reads the ids in the file `name` below `root`, and appends problems with the file to `problems`."""
    try:
        lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{name} is no list of ids: {error}")
        return []
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        problems.append(f"{name} lists no image")
    problems += [f"{name}: id {key!r} is no name of a file below a folder" for key in ids if not is_file_name(key)]
    return ids


def is_file_name(key: str) -> bool:
    """Returns True if an id is a normalised relative path that does not leave its folder, on one line of a list."""
    path = PurePosixPath(key)
    plain = not path.is_absolute() and ".." not in path.parts and str(path) == key
    return plain and [key] == key.strip().splitlines()
