import pytest

from mtl_jax import backbones
from tests.tiny import TinyBackbone


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", lambda name, *, dtype, rngs: TinyBackbone(dtype=dtype, rngs=rngs))
