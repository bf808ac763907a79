"""The export format "jax": a zip archive with a program of `jax.export` and its description.

* `program.jaxexport`: the serialised program with the weights in it;
* `description.json`: the program's inputs, outputs and origin.

Reading the file takes jax with `flatbuffers` and nothing of this package; docs/export.md shows how.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
from jax import export as jax_export

from mtl_jax.inference.export_formats import ExportFormat
from mtl_jax.inference.program import Program
from mtl_jax.nn import depthwise_conv, isolate

# What jax guarantees about exported programs (https://docs.jax.dev/en/latest/export/export.html, section
# "Compatibility guarantees").
_MONTHS_NEWER, _WEEKS_OLDER = 6, 3


class JaxFormat(ExportFormat):
    """A zip archive with a program of `jax.export`."""

    suffix = ".zip"
    platforms = ("cpu", "cuda", "rocm", "tpu")
    default_platforms = ("cpu", "cuda")

    def check_installed(self) -> None:
        """Does nothing: jax and flatbuffers are dependencies of this package."""

    def encode(
        self, program: Program, description: dict[str, Any], platforms: Sequence[str]
    ) -> tuple[bytes, dict[str, Any]]:
        exported = export_program(program, platforms)
        complete = description | {"platforms": list(platforms), "lifetime": _lifetime(exported)}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("description.json", json.dumps(complete, indent=1) + "\n")
            archive.writestr("program.jaxexport", exported.serialize())
        return content.getvalue(), complete


def export_program(program: Program, platforms: Sequence[str]) -> jax_export.Exported:
    """Returns the program as `jax.export` writes it down.

    Args:
        program: The model.
        platforms: Platforms that it can be compiled for.
    """
    with isolate.fused(), depthwise_conv.sums_of_taps("cpu" in platforms):
        return jax_export.export(program.predict, platforms=platforms)(program.images)


def _lifetime(exported: jax_export.Exported) -> dict[str, Any]:
    """Returns which versions of jax read a program, in words and numbers."""
    return {
        "words": (
            f"Written by jax {jax.__version__}. jax guarantees that the program runs with versions of jax and jaxlib "
            f"that are released up to {_MONTHS_NEWER} months after that version, and with versions that were released "
            f"up to {_WEEKS_OLDER} weeks before it. Export the model again for later versions."
        ),
        "source": "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees",
        "jax": jax.__version__,
        "months_newer": _MONTHS_NEWER,
        "weeks_older": _WEEKS_OLDER,
        "calling_convention_version": exported.calling_convention_version,
    }
