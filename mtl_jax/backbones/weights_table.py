"""Published weights of backbones by name. The file of a backbone registers its own."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtl_jax.runtime.download import DownloadError
from mtl_jax.runtime.published_files import PublishedFile

logger = logging.getLogger(__name__)

WEIGHTS: dict[str, dict[str, "Weights"]] = {}  # {backbone: {name: its weights}}, the usual ones first
_OTHERWISE = "name a file with --model.pretrained=PATH, or train from scratch with --model.pretrained="


@dataclass(frozen=True)
class Weights:
    """Published weights of a backbone.

    Attributes:
        file: The file with the weights, under names that the backbone's `published_arrays` understands.
        license: License of the weights, an SPDX identifier where there is one.
    """

    file: PublishedFile
    license: str


def register_weights(backbone: str, name: str, file: PublishedFile, *, license: str) -> None:
    """Registers published weights, which `model.pretrained` then may name::

        backbones.register_weights("my_net", "imagenet", Address("https://.../my_net-0a1b2c3d.pth"), license="MIT")

    The first weights of a backbone are those that `create_model(..., pretrained=True)` takes. A file must fill the
    whole part of the backbone that `pretrained_part` returns, and hold nothing else but what its `published_arrays`
    leaves out. If the images were normalised otherwise than with ImageNet's statistics, the backbone converts them
    (`mtl_jax.backbones.renormalise`).

    Args:
        backbone: Name of the backbone.
        name: Name of the weights: what they were trained on, "imagenet" for example.
        file: The file: `Address`, `HubFile` or `PackageFile`.
        license: License of the weights.

    Raises:
        ValueError: The backbone has other weights of this name.
    """
    row, rows = Weights(file, license), WEIGHTS.setdefault(backbone, {})
    if rows.get(name, row) != row:
        raise ValueError(f"backbone {backbone!r} has weights {name!r} already; give yours another name")
    rows[name] = row


def default_weights(backbone: str) -> str:
    """Returns the name of a backbone's usual weights.

    Raises:
        ValueError: It has no published weights.
    """
    if not (rows := weights_of(backbone)):
        raise ValueError(f"backbone {backbone!r} has no published weights; give the path of a file in place of True")
    return next(iter(rows))


def weights_of(backbone: str) -> Mapping[str, Weights]:
    """Returns {name: published weights} of a backbone."""
    return WEIGHTS.get(backbone, {})


def weights_path(source: str, backbone: str) -> Path:
    """Returns the path of a file of pretrained weights, after a download if it is not there.

    Args:
        source: Name of published weights of the backbone, or the path of a file.
        backbone: Name of the backbone.

    Raises:
        FileNotFoundError: There is neither such a file nor such weights.
        OSError: The file cannot be fetched. The message says how to get it.
        ValueError: What was fetched is another file, or an extra is not installed.
    """
    rows = weights_of(backbone)
    if source not in rows:
        if Path(source).is_file():
            return Path(source)
        known = f"the weights {', '.join(rows)}" if rows else "no published weights"
        raise FileNotFoundError(
            f"model.pretrained is {source!r}: there is no such file, and backbone {backbone!r} has {known} (`mtl list "
            f"weights` lists those of all backbones); {_OTHERWISE}"
        )
    row = rows[source]
    logger.info("weights %s of %s: %s, license %s", source, backbone, row.file.place, row.license)
    others = ", ".join(f"--model.pretrained={name}" for name in rows if name != source)
    try:
        return row.file.fetch()
    except OSError as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else DownloadError
        raise kind(
            f"{error}. The configuration asks for the weights {source} of {backbone}. Otherwise "
            + (f"take {others}, " if others else "")
            + _OTHERWISE
        ) from error
