"""Weights of pretrained backbones: published ImageNet weights, or a file of arrays under torch's names."""

import logging
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mtl_jax.runtime.download import DownloadError, cache_dir, retrieve, sha256
from mtl_jax.weights.array_files import read_arrays
from mtl_jax.weights.prefixes import fit_names, strip_prefix

logger = logging.getLogger(__name__)

IMAGENET = "imagenet"
_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/"
# {backbone: published file}. The name of a file ends in the first digits of its SHA-256. A dilated backbone has the
# weights of the backbone without dilation.
_PUBLISHED = {
    "resnet18": f"{_TORCHVISION}resnet18-f37072fd.pth",
    "resnet34": f"{_TORCHVISION}resnet34-b627a593.pth",
    "resnet50": f"{_TORCHVISION}resnet50-0676ba61.pth",
    "resnet101": f"{_TORCHVISION}resnet101-63fe2227.pth",
    "resnet152": f"{_TORCHVISION}resnet152-394f9c45.pth",
    "hrnet_w18_small": f"{_TIMM}hrnet_w18_small_v1-f460c6bc.pth",
    "hrnet_w18": f"{_TIMM}hrnet_w18_small_v2-4c50a8cb.pth",
    "hrnet_w18_full": f"{_TIMM}hrnetv2_w18-8cb57bb9.pth",
    "hrnet_w32": f"{_TIMM}hrnetv2_w32-90d8c5fb.pth",
    "hrnet_w48": f"{_TIMM}hrnetv2_w48-abd2e6ab.pth",
}
# Prefixes of the layers of the published classifiers that a dense backbone does not have.
_CLASSIFIER = ("fc.", "classifier.", "final_layer.", "incre_modules.", "downsamp_modules.")


_LARGEST = 2**31  # bytes; the largest published file has 304 MB
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.){0,8}")
_HEADS = ("decoder.", "decoders.", "heads.")


def read_pretrained(
    source: str, backbone: str, *, names: Collection[str] = (), entry: str = "", prefix: str = ""
) -> dict[str, np.ndarray]:
    """Returns {torch key: array} of a pretrained backbone, without the classifier.

    ImageNet weights are downloaded once.

    Args:
        source: The word "imagenet", or the path of a torch, safetensors or npz file.
        backbone: Name of the backbone, a key of `mtl_jax.backbones.BACKBONES`.
        names: Torch keys of the backbone. If they are given, a prefix before the names in the file is removed
            (`fit_names`).
        entry: Entry of a training checkpoint that holds the weights (`read_arrays`).
        prefix: Prefix that is removed instead; arrays whose names begin otherwise are left out.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The download failed. The message names the address to fetch and the path of the file.
        ValueError: No ImageNet weights are known for the backbone; or the file is damaged, has several or no weights,
            or holds a whole model of this package.
    """
    path = _path(source, backbone)
    arrays = read_arrays(path, entry)
    if prefix:
        arrays = strip_prefix(arrays, prefix, str(path))
    else:
        if _is_whole_model(arrays):
            raise ValueError(
                f"{path} holds a whole model, not a backbone. To train on with all of it, make a work directory: "
                "mtl convert FILE WORKDIR --config RECIPE. To take the backbone alone, name the "
                "beginning of its names: --model.pretrained_prefix=backbone."
            )
        arrays = fit_names(arrays, names, str(path))
    return {key: value for key, value in arrays.items() if not key.startswith(_CLASSIFIER)}


def _is_whole_model(names: Collection[str]) -> bool:
    """Returns whether names are those of a model of this package, with or without prefixes of wrappers."""
    keys = [_WRAPPERS.sub("", name, count=1) for name in names]
    return all(key.startswith(("backbone.", *_HEADS)) for key in keys) and any(key.startswith(_HEADS) for key in keys)


def _path(source: str, backbone: str) -> Path:
    if source == IMAGENET:
        return _published(backbone)
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"model.pretrained is {source!r} and there is no such file; give another path, {IMAGENET!r}, or nothing"
        )
    return Path(source)


def _published(backbone: str) -> Path:
    """Returns the path of the ImageNet weights of a backbone in the cache, after a download if they are not there."""
    if (name := backbone.removesuffix("_dilated")) not in _PUBLISHED:
        raise ValueError(
            f"no ImageNet weights are known for backbone {backbone!r} (known: {', '.join(_PUBLISHED)}); name a file "
            "with --model.pretrained=PATH"
        )
    url = _PUBLISHED[name]
    file = url.rpartition("/")[-1]
    path = cache_dir() / file

    def verify(candidate: Path) -> None:
        expected = Path(file).stem.rpartition("-")[-1]
        if not (found := sha256(candidate)).startswith(expected):
            raise ValueError(
                f"{path}: the file from {url} must have a SHA-256 that begins with {expected}, found {found}. "
                "Delete it, if it is there, and fetch it again"
            )

    if not path.is_file():
        logger.info("downloading %s to %s", url, path)
    try:
        retrieve(url, path, verify, limit=_LARGEST)
    except DownloadError as error:
        raise DownloadError(
            f"{error}. The configuration asks for ImageNet weights of {backbone}: fetch {url} by other means and put "
            f"it at {path}; or name another file with --model.pretrained=PATH; or train from scratch with "
            "--model.pretrained="
        ) from error
    return path
