"""Paths of a data set's files as patterns, for example "{split}annot/{id}.png".

{id} stands for the id of an image, which may name folders, and {split} for the name of its split. Where a pattern of a
data set has {split}, the ids of its images are "SPLIT/ID", so that splits may have images of one name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_FIELDS = re.compile(r"\{(?:id|split)\}")


@dataclass(frozen=True)
class FilePattern:
    """The path of a file of each image, below the data set's folder.

    Attributes:
        stem: The path without suffix, with {id} and, where files of splits lie apart, {split}.
        suffixes: Suffixes that the file may have, in small letters. Files may spell them in capitals.
    """

    stem: str
    suffixes: tuple[str, ...]

    def stem_of(self, key: str, by_split: bool) -> str:
        """Returns the path of an image's file without suffix.

        Args:
            key: Id of the image.
            by_split: The id begins with the name of the split, see the module's docstring.
        """
        split, name = key.split("/", 1) if by_split else ("", key)
        return self.stem.replace("{split}", split).replace("{id}", name)

    def folder(self, split: str) -> str:
        """Returns the folder below which the files of a split lie."""
        before_id = self.stem.replace("{split}", split).partition("{id}")[0]
        return before_id.rpartition("/")[0] or "."

    def files(self, root: Path, split: str) -> Iterator[tuple[str, str]]:
        """Yields (id without split, path below `root`) of the files of a split that are there.

        Args:
            root: Folder of the data set.
            split: Name of the split.
        """
        stem = self.stem.replace("{split}", split)
        wanted = re.compile("(.+)".join(map(re.escape, stem.split("{id}"))))
        for path in (root / self.folder(split)).rglob("*"):
            name = path.relative_to(root)
            match = wanted.fullmatch(name.with_suffix("").as_posix()) if path.suffix.lower() in self.suffixes else None
            if match and len(set(match.groups())) == 1:
                yield match[1], name.as_posix()


def parse(text: str, suffixes: tuple[str, ...]) -> FilePattern:
    """Returns the pattern that a text describes.

    Args:
        text: A folder, which means FOLDER/{id} with any of the suffixes, or a path with {id}. A path that ends in one
            of the suffixes has this suffix alone.
        suffixes: Suffixes that such files may have.
    """
    if not _FIELDS.search(text):
        text = f"{text}/{{id}}"
    suffix = PurePosixPath(text).suffix
    if suffix.lower() in suffixes:
        return FilePattern(text[: -len(suffix)], (suffix.lower(),))
    return FilePattern(text, suffixes)
