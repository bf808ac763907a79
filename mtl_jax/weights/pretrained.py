"""Pretrained backbones: ImageNet weights by name, or any file of torch-named arrays."""

import logging
from pathlib import Path

import numpy as np

from mtl_jax.runtime.download import DownloadError, cache_dir, retrieve, sha256
from mtl_jax.weights.array_files import read_arrays

logger = logging.getLogger(__name__)

IMAGENET = "imagenet"
_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/"
# Backbone -> published file, whose name ends in the first digits of its SHA-256. Dilation changes no weight.
_PUBLISHED = {
    "resnet18": f"{_TORCHVISION}resnet18-f37072fd.pth",
    "resnet34": f"{_TORCHVISION}resnet34-b627a593.pth",
    "resnet50": f"{_TORCHVISION}resnet50-0676ba61.pth",
    "resnet101": f"{_TORCHVISION}resnet101-63fe2227.pth",
    "resnet152": f"{_TORCHVISION}resnet152-394f9c45.pth",
    "hrnet_w18": f"{_TIMM}hrnet_w18_small_v2-4c50a8cb.pth",
    "hrnet_w18_full": f"{_TIMM}hrnetv2_w18-8cb57bb9.pth",
    "hrnet_w32": f"{_TIMM}hrnetv2_w32-90d8c5fb.pth",
    "hrnet_w48": f"{_TIMM}hrnetv2_w48-abd2e6ab.pth",
}
# Layers of the published classifiers that a dense backbone has no use for.
_CLASSIFIER = ("fc.", "classifier.", "final_layer.", "incre_modules.", "downsamp_modules.")


def read_pretrained(source: str, backbone: str) -> dict[str, np.ndarray]:
    """{torch key: array} of a pretrained backbone, without the classifier; ImageNet weights are downloaded once.

    Args:
        source: "imagenet", or the path of a .safetensors, .npz or torch file.
        backbone: its key in `mtl_jax.backbones.BACKBONES`.

    Raises:
        FileNotFoundError: the file is not there.
        OSError: the download failed; the message says what to fetch and where to put it.
        ValueError: no ImageNet weights are known, or the file is damaged.
    """
    arrays = read_arrays(_path(source, backbone))
    return {key: value for key, value in arrays.items() if not key.startswith(_CLASSIFIER)}


def _path(source: str, backbone: str) -> Path:
    if source == IMAGENET:
        return _published(backbone)
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"model.pretrained is {source!r} and there is no such file; give another path, {IMAGENET!r}, or nothing"
        )
    return Path(source)


def _published(backbone: str) -> Path:
    """The file with a backbone's ImageNet weights, downloaded into the cache where it is not there."""
    if (name := backbone.removesuffix("_dilated")) not in _PUBLISHED:
        raise ValueError(
            f"no ImageNet weights are known for backbone {backbone!r} (known: {', '.join(_PUBLISHED)}); name a file "
            "with --config.model.pretrained=PATH"
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

    if path.is_file():
        verify(path)
        return path
    logger.info("downloading %s to %s", url, path)
    try:
        retrieve(url, path, verify)
    except DownloadError as error:
        raise DownloadError(
            f"{error}. The configuration asks for ImageNet weights of {backbone}: fetch {url} by other means and put "
            f"it at {path}; or name another file with --config.model.pretrained=PATH; or train from scratch with "
            "--config.model.pretrained="
        ) from error
    return path
