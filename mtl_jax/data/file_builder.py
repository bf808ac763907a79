"""What the builders that read original files share: finding the files, checking all of them, ArrayRecord."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from mtl_jax.data import fetch
from mtl_jax.data.staging import Staging
from mtl_jax.labels.readers import Reading

LABELLED = "labelled"  # a record's text with the tasks it has labels for, and the metadata with those of all records
_LISTED = 20  # problems spelled out in an error; all of them go to a file


@dataclass(kw_only=True)
class FilesConfig(tfds.core.BuilderConfig):
    """A release of a data set, or a part of it.

    Attributes:
        counts: images in each split, or None where any number will do.
        source: where the archive can be downloaded, if anywhere.
    """

    counts: Mapping[str, int] | None = None
    source: fetch.Download | None = None


class FilesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set read from files: every file of every image is checked before anything is built.

    Always ArrayRecord: TensorFlow is never needed. Record i of a split is image i of its list.

    A subclass says what its files are:
        FOLDER: name of the data set's folder, and stem of its archive.
        MARKER: a file or folder in there by which it is recognised.
        DESCRIPTION: one sentence.
        `lists`, `labels`, `read_record` and `candidates`.

    Args:
        num_workers: processes that read files, see `workers.map_ordered`.
        file_format: of the stored records, as tfds knows it.
        kwargs: as of `tfds.core.DatasetBuilder`.
    """

    FOLDER: ClassVar[str]
    MARKER: ClassVar[str]
    DESCRIPTION: ClassVar[str]

    def __init__(self, *, num_workers: int | None = None, file_format: Any = None, **kwargs: Any):
        self._num_workers = num_workers
        super().__init__(file_format=file_format or tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

    def lists(self) -> Mapping[str, str]:
        """{split: file with one id a line}, below the data set's folder."""
        raise NotImplementedError

    def labels(self) -> Mapping[str, tfds.features.FeatureConnector]:
        """{task: feature}, and a text `labelled` where not every image has every label."""
        raise NotImplementedError

    def extra(self) -> Mapping[str, tfds.features.FeatureConnector]:
        """{name: feature} of what records hold besides image and labels."""
        return {}

    def read_record(self, root: Path) -> Callable[[str], Reading]:
        """A function that pickles: id -> (record, what is wrong with its files)."""
        raise NotImplementedError

    def candidates(self, root: Path) -> Callable[[str], Sequence[Path]]:
        """A function: id -> the files `read_record` looks at, whether they exist or not."""
        raise NotImplementedError

    def identity(self) -> list[str]:
        """What the records depend on besides the files."""
        return [self.name, self.builder_config.name, str(self.version)]

    def find(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """The folder with the files: given, unpacked from an archive, or downloaded; see `fetch.locate`."""
        config = self.builder_config
        return fetch.locate(
            self.FOLDER,
            config.source,
            marker=self.MARKER,
            manual_dir=fetch.given_manual_dir(dl_manager, self.FOLDER),
            download_dir=Path(dl_manager.download_dir) / self.name / config.name.removesuffix("_subset"),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Builds the data set unless it is there; an interrupted build is continued by the next.

        See `tfds.core.DatasetBuilder.download_and_prepare`.

        Raises:
            ValueError: faulty files; the message lists them.
            FileNotFoundError: no files.
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
        ids = {split: read_list(root, name, problems) for split, name in self.lists().items()}
        everything = list(chain.from_iterable(ids.values()))
        lists = " and ".join(self.lists().values())
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
            problems += self._note_labelled(staging, ids)
        if problems:
            self._raise(problems, root)
        return {split: self._generate_examples(split, staging, names) for split, names in ids.items()}

    def _generate_examples(
        self, split: str, staging: Staging, ids: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        records = tqdm(staging.records(ids), f"writing {split}", len(ids), unit="image")
        yield from enumerate(records)

    def _subset(self) -> str:
        return f"{self.builder_config.name}_subset"

    def _note_labelled(self, staging: Staging, ids: Mapping[str, Sequence[str]]) -> list[str]:
        """Metadata `labelled`: {task: {split: positions of the images with this label}}, where some have none.

        Returns:
            The problem that not a single image has a label of some task.
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
            task: found for task, found in positions.items() if sum(map(len, found.values())) < everything
        }
        return [
            f"no image has a label of {task}; leave the task out, or correct where its files are"
            for task, found in positions.items()
            if not any(found.values())
        ]

    def _raise(self, problems: Sequence[str], root: Path) -> None:
        report = self._staging_folder / "problems.txt"
        report.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
        lines = list(problems[:_LISTED])
        if len(problems) > _LISTED:
            lines.append(f"and {len(problems) - _LISTED} more, listed in {report}")
        raise ValueError(
            f"{len(problems)} problem(s) with the files of {self.name} in {root}; nothing was built. Replace the files "
            "and build again; most of what was in order will not be read again:\n  " + "\n  ".join(lines)
        )


def png_feature() -> tfds.features.Image:
    """A label map of bytes `[H, W, 1]`, stored as PNG."""
    return tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png")


def float_feature(channels: int) -> tfds.features.Tensor:
    """A label map of float32 `[H, W, channels]`; ArrayRecord compresses it (losslessly)."""
    return tfds.features.Tensor(shape=(None, None, channels), dtype=np.float32, encoding=tfds.features.Encoding.BYTES)


def read_list(root: Path, name: str, problems: list[str]) -> list[str]:
    """The ids in a file below `root`; adds to `problems` what is wrong with it."""
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
    problems += [f"{name}: id {key!r} is no name of a file below a folder" for key in ids if not _is_plain(key)]
    return ids


def _is_plain(key: str) -> bool:
    """Whether an id stays where it is put, and has no other spelling."""
    path = PurePosixPath(key)
    return not path.is_absolute() and ".." not in path.parts and str(path) == key
