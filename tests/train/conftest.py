import signal

import pytest

from mtl_jax import backbones
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)


@pytest.fixture
def interruptible():
    """SIGINT interrupts this process and those that it starts, which a background job of a script ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
