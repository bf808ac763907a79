"""The table of published weights against timm's, where timm is installed: places, licenses, statistics of images."""

import re

import numpy as np
import pytest

from mtl_jax import backbones
from mtl_jax.backbones import efficientnet_lite, mobilenet_v2, mobilenet_v3, vit_variants
from mtl_jax.backbones.renormalise import IMAGENET_MEAN, IMAGENET_STD
from mtl_jax.runtime.published_files import Address, HubFile

VARIANTS = efficientnet_lite.VARIANTS | mobilenet_v2.VARIANTS | mobilenet_v3.VARIANTS | vit_variants.VARIANTS
ROWS = {
    (backbone, name): row
    for backbone, rows in backbones.WEIGHTS.items()
    for name, row in rows.items()
    if isinstance(row.file, Address | HubFile)
}


@pytest.fixture(scope="module")
def published():
    """{address or repository: timm's description of the file}."""
    timm = pytest.importorskip("timm", reason="compares with timm", exc_type=ModuleNotFoundError)
    described = {}
    for name in timm.list_models(pretrained=True):
        description = timm.get_pretrained_cfg(name)
        # The first names of models whose file is one of several.
        for place in (description.url, f"hf://{description.hf_hub_id}"):
            described.setdefault(place, description)
    return described


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_weights(row, published):
    backbone, _ = row
    place = ROWS[row].file.place
    if "/v0.1-hrnet/" in place:
        pytest.skip("timm no longer lists the addresses of HRNet's files")
    description = published[place]
    words = [re.sub(r"[^a-z0-9]", "", text.lower()) for text in (ROWS[row].license, description.license)]
    assert words[0] == words[1]
    variant = VARIANTS.get(backbone)
    mean, std = (variant.mean, variant.std) if variant else (IMAGENET_MEAN, IMAGENET_STD)
    # timm writes 0.5 for the 127 / 255 and 128 / 255 of TensorFlow's EfficientNet-Lite.
    np.testing.assert_allclose(mean, description.mean, atol=0.002)
    np.testing.assert_allclose(std, description.std, atol=0.002)
    if isinstance(ROWS[row].file, HubFile):
        assert (description.hf_hub_filename or "model.safetensors") == ROWS[row].file.file
