"""Files that others have published: at an address, on the Hugging Face Hub, or in an installed package."""

import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from mtl_jax.runtime import hub, messages
from mtl_jax.runtime.download import DownloadError, cache_dir, retrieve, sha256

logger = logging.getLogger(__name__)

_LARGEST = 2**31  # bytes; the largest file at an address has 346 MB


class PublishedFile(Protocol):
    """A file that somebody has published."""

    @property
    def place(self) -> str:
        """Where the file is, for people."""

    @property
    def checksum(self) -> str:
        """The SHA-256 that the file must have, or its first digits; empty = not known."""

    def fetch(self) -> Path:
        """Returns the path of the file on this machine, after a download if it is not there.

        Raises:
            OSError: The file is missing or cannot be downloaded. The message says how to get it.
            ValueError: The file is another one than the expected one, or an extra is not installed.
        """


@dataclass(frozen=True)
class Address:
    """A file at an address, which is downloaded once.

    Attributes:
        url: The address. The name of the file ends in the first digits of its SHA-256: "resnet18-f37072fd.pth".
    """

    url: str

    @property
    def place(self) -> str:
        return self.url

    @property
    def checksum(self) -> str:
        return Path(self.url).stem.rpartition("-")[-1]

    def fetch(self) -> Path:
        path = cache_dir() / self.url.rpartition("/")[-1]

        def verify(candidate: Path) -> None:
            if not (found := sha256(candidate)).startswith(self.checksum):
                raise ValueError(
                    f"{path}: the file from {self.url} must have a SHA-256 that begins with {self.checksum}, found "
                    f"{found}. Delete it, if it is there, and fetch it again"
                )

        if not path.is_file():
            logger.info("downloading %s to %s", self.url, path)
        try:
            retrieve(self.url, path, verify, limit=_LARGEST)
        except DownloadError as error:
            raise DownloadError(f"{error}. Fetch {self.url} by other means and put it at {path}") from error
        return path


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub, which is downloaded once.

    Attributes:
        repository: The repository, "OWNER/NAME".
        file: Path of the file in the repository.
        revision: Branch, tag or commit; empty = the newest commit.
        checksum: SHA-256 of the file; empty = not known.
    """

    repository: str
    file: str = "model.safetensors"
    revision: str = ""
    checksum: str = ""

    @property
    def place(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def fetch(self) -> Path:
        client = hub.client(f"{self.place}/{self.file}")
        try:
            path = Path(client.hf_hub_download(self.repository, self.file, revision=self.revision or None))
        except OSError as error:
            raise DownloadError(
                f"cannot download {self.file} from {self.place}: {error}. If the repository asks to accept a license, "
                f"do so at https://huggingface.co/{self.repository} and log in with `hf auth login`; or fetch the file "
                "by other means"
            ) from error
        if self.checksum:
            _check(path, self.place, self.checksum)
        else:
            logger.info("%s: no checksum of this file is known; its names and shapes are checked", path)
        return path


@dataclass(frozen=True)
class PackageFile:
    """A file in a Python package, which an extra of this package installs.

    Attributes:
        distribution: Name of the package, as pip knows it.
        file: Path of the file in the folder where packages are installed.
        extra: Name of the extra.
        checksum: SHA-256 of the file.
    """

    distribution: str
    file: str
    extra: str
    checksum: str

    @property
    def place(self) -> str:
        return f"package {self.distribution} (extra {self.extra})"

    def fetch(self) -> Path:
        try:
            path = Path(str(metadata.distribution(self.distribution).locate_file(self.file)))
        except metadata.PackageNotFoundError as error:
            raise FileNotFoundError(
                f'the package {self.distribution} is not installed; it comes with the extra "{self.extra}": '
                f"{messages.install(self.extra)}"
            ) from error
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; install the package {self.distribution} again")
        _check(path, self.place, self.checksum)
        return path


def _check(path: Path, place: str, expected: str) -> None:
    """Raises a ValueError unless a file has the expected SHA-256."""
    if (found := sha256(path)) != expected:
        raise ValueError(
            f"{path}: the file from {place} must have the SHA-256 {expected}, found {found}. Delete it, and fetch it "
            "again"
        )
