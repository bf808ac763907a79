"""The interface of export formats, which `jax_format` and `onnx_format` implement."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from mtl_jax.inference.program import Program


class ExportFormat(ABC):
    """A kind of file that holds a model, its weights and its description.

    Attributes:
        suffix: Suffix of the files.
        platforms: Platforms to choose from; empty = the files are the same for all platforms.
        default_platforms: Platforms that a file is for where nobody chooses.
        dtypes: Types in which programs may compute.
    """

    suffix: str
    platforms: tuple[str, ...] = ()
    default_platforms: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "bfloat16")

    @abstractmethod
    def check_installed(self) -> None:
        """Checks that the packages that write such files are installed.

        Raises:
            ValueError: A package is missing; the message says how to install it.
        """

    @abstractmethod
    def encode(
        self, program: Program, description: dict[str, Any], platforms: Sequence[str]
    ) -> tuple[bytes, dict[str, Any]]:
        """Returns the content of a file, and the description in it.

        Args:
            program: The model.
            description: What all formats say about the model, ready for JSON. The format adds what is its own.
            platforms: Platforms that the file is for.
        """
