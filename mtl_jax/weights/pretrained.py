"""Pretrained backbones from files of torch-named arrays."""

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mtl_jax.weights.torch_names import load_torch

logger = logging.getLogger(__name__)

# Backbone -> the published file with its ImageNet weights.
_IMAGENET = {
    "hrnet_w18": "hrnet_w18_small_v2-f460c6bc.pth, a file of timm's GitHub release v0.1-hrnet",
}
# Layers of the published classifiers that a dense backbone has no use for.
_CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "fc.")


def cache_dir() -> Path:
    """Where converted ImageNet weights are looked for: $MTL_JAX_CACHE, by default ~/.cache/mtl_jax."""
    return Path(os.environ.get("MTL_JAX_CACHE", Path.home() / ".cache" / "mtl_jax"))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors or .npz file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .safetensors or .npz file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return dict(arrays)
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}; convert the weights again") from error
    raise ValueError(
        f"{path} is a {path.suffix or 'nameless'} file; .safetensors and .npz are read here. A .pth file is converted "
        "by python scripts/convert.py FILE.pth FILE.safetensors"
    )


def load_pretrained(backbone: nnx.Module, source: str, name: str) -> None:
    """Fills a backbone with pretrained weights.

    Args:
        source: "imagenet", or the path of a .safetensors or .npz file of torch-named arrays.
        name: the backbone's key in `mtl_jax.backbones.BACKBONES`.

    Raises:
        FileNotFoundError: the file is not there; the message says where to get it.
        ValueError: the file does not fit the backbone; every unmatched or unfilled key is listed.
    """
    path = pretrained_path(source, name)
    load_torch(backbone, _backbone_arrays(read_arrays(path)))
    logger.info("backbone %s starts from %s", name, path)


def pretrained_path(source: str, name: str) -> Path:
    """The file that `load_pretrained` reads; the arguments and errors are its own."""
    if source != "imagenet":
        if not Path(source).is_file():
            raise FileNotFoundError(f"model.pretrained is {source!r} and there is no such file; give another path")
        return Path(source)
    if name not in _IMAGENET:
        known = ", ".join(_IMAGENET)
        raise ValueError(f"no ImageNet weights are known for backbone {name!r} (known: {known}); give a path instead")
    path = cache_dir() / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"the configuration asks for ImageNet weights of {name} and there are none at {path}. "
            f"Fetch {_IMAGENET[name]}, and run python scripts/convert.py FILE.pth {path}; or name another file with "
            "--config.model.pretrained=PATH; or train from scratch with --config.model.pretrained="
        )
    return path


def _backbone_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without DataParallel's prefix and without the classifier."""
    plain = {key.removeprefix("module."): value for key, value in arrays.items()}
    return {key: value for key, value in plain.items() if not key.startswith(_CLASSIFIER)}
