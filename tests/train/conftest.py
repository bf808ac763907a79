import pytest

from mtl_jax import backbones
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
