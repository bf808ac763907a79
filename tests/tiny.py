"""Small stand-ins that keep compilation short."""

import itertools

import jax
from flax import nnx

from mtl_jax.backbones.base import Backbone
from mtl_jax.config import Config, Data, Model, Optim, Train
from mtl_jax.nn import Conv


class TinyBackbone(Backbone):
    """Strided convolutions: the resolutions of an HRNet, little else. SE needs 16 channels at least."""

    def __init__(self, *, scales: int = 2, rngs: nnx.Rngs, dtype=None):
        self.channels = (16, 32, 64, 128)[:scales]
        widths = (3, *self.channels)
        self.stem = Conv(3, 3, 3, stride=2, dtype=dtype, rngs=rngs)
        self.convs = nnx.List([Conv(a, b, 3, stride=2, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(widths)])

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        x, maps = self.stem(x), []
        for conv in self.convs:
            x = nnx.relu(conv(x))
            maps.append(x)
        return tuple(maps)


def build_backbone(name: str, *, dtype, rngs: nnx.Rngs) -> TinyBackbone:
    """What tests register as the backbone "tiny"."""
    return TinyBackbone(dtype=dtype, rngs=rngs)


def config(data_dir, **train) -> Config:
    """A single-task run on the embedded data at its smallest."""
    data = Data(
        "nyud",
        ("depth",),
        builder="rendered_scenes/nyud_tiny",
        data_dir=str(data_dir),
        image_size=(64, 64),
        num_workers=0,
    )
    options = {"batch_size": 4, "epochs": 2, "log_every": 1, "eval_batch_size": 4} | train
    return Config(data, Model("single_task", "tiny"), Optim(lr=1e-3), Train(**options))
