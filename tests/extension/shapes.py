"""An extension as someone outside of the package writes it: a task with labels of a new kind, a loss, a metric, a
backbone, a model with options, and a data set. Everything is added through public functions."""

from dataclasses import dataclass

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from flax import nnx

from mtl_jax import backbones, data, losses, metrics, models, tasks
from mtl_jax.backbones import Backbone
from mtl_jax.labels import IGNORE, RealValues
from mtl_jax.models import ModelParts, MultiTaskModel
from mtl_jax.nn import Conv, resize_like
from mtl_jax.outputs import Outputs
from mtl_jax.tasks import Criterion, Task

COLD, HOT = (0, 0, 128), (255, 128, 0)  # colours of 0 and 1


# A kind of label: heat maps, numbers from 0 to 1 of which 0 is a value like any other.
@dataclass(frozen=True)
class HeatMap(RealValues):
    low: float = 0.0
    high: float = 1.0
    colors_mean: str = "from cold (blue) to hot (orange)"

    def activate(self, logits: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(logits)

    def paint(self, array, *, is_label, low=None, high=None):
        heat = np.clip(array[..., :1], 0, 1)
        return ((1 - heat) * COLD + heat * HOT).astype(np.uint8)


# A loss and a metric.
@losses.register("heat_squared_error")
def squared_error(prediction, label, *, counts=None):
    valid = label != IGNORE
    number = valid.sum() if counts is None else counts.valid
    errors = jnp.square(jax.nn.sigmoid(prediction) - label)
    return jnp.where(valid, errors, 0).sum() / jnp.maximum(number, 1).astype(errors.dtype)


@losses.register("scaled_cross_entropy")
def scaled_cross_entropy(prediction, label, *, counts=None):
    return 0.5 * losses.softmax_cross_entropy(prediction, label, counts=counts)


@dataclass(frozen=True)
class HeatError(metrics.Metric):
    def empty(self):
        return {"pixels": np.zeros(0, np.int32), "error": np.zeros(0)}

    def update(self, prediction, label):
        xp = label.__array_namespace__()
        valid = label != IGNORE
        errors = xp.where(valid, abs(prediction - label), xp.zeros_like(label))
        return {"pixels": valid.sum(axis=(1, 2, 3)).astype(np.int32), "error": errors.sum(axis=(1, 2, 3))}

    def compute(self, stats):
        return {"mean_error": float(stats["error"].sum() / max(stats["pixels"].sum(), 1))}


metrics.register("heat_error", lambda options: HeatError())
tasks.register(
    Task(
        name="heat",
        kind=HeatMap(),
        loss="heat_squared_error",
        loss_weight=1.0,
        metric="heat_error",
        criterion=Criterion("mean_error", higher_is_better=False),
    )
)


# A backbone that depends on the size of its input, as position embeddings do.
class Patches(Backbone):
    channels = (16,)
    stages = ("patches",)
    fixed_size = True

    def __init__(self, image_size, *, rngs):
        self.embed = Conv(3, 16, 3, stride=2, rngs=rngs)
        height, width = (-(-side // 2) for side in image_size)
        self.position = nnx.Param(jnp.zeros((1, height, width, 16)))

    def stage_channels(self, stage):
        return self.channels

    def forward_stage(self, stage, maps):
        x = self.embed(maps[0])
        return (nnx.relu(x + self.position[...].astype(x.dtype)),)


@backbones.register("patches")
def build_patches(name, *, image_size, rngs):
    return Patches(image_size, rngs=rngs)


# A model with options of its own.
@dataclass(frozen=True)
class GatedOptions:
    """Options of the model "gated".

    Attributes:
        width: Number of channels of the shared map.
    """

    width: int = 8


class Gated(MultiTaskModel):
    def __init__(self, backbone, num_outputs, width, *, rngs):
        self.tasks = tuple(num_outputs)
        self.backbone = backbone
        self.mix = Conv(backbone.channels[-1], width, 3, rngs=rngs)
        self.gate = Conv(backbone.channels[-1], width, 1, rngs=rngs)
        self.heads = nnx.Dict({task: Conv(width, n, 1, use_bias=True, rngs=rngs) for task, n in num_outputs.items()})

    def __call__(self, images):
        features = self.backbone(images)[-1]
        shared = self.mix(features) * nnx.sigmoid(self.gate(features))
        return Outputs({task: resize_like(self.heads[task](shared), images) for task in self.tasks})


@models.register("gated", options=GatedOptions)
def build_gated(parts: ModelParts, options: GatedOptions) -> Gated:
    parts.refuse_aux_tasks()
    return Gated(parts.backbone(), parts.num_outputs, options.width, rngs=parts.rngs)


# A data set: discs and squares, with the heat of a source in the middle of each.
CLASSES = ("background", "disc", "square")


def draw(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (48, 64, 3)).astype(np.uint8)
    classes, heat = np.zeros((48, 64, 1), np.uint8), np.zeros((48, 64, 1), np.float32)
    for kind in (1, 2):
        x, y, size = int(rng.integers(12, 52)), int(rng.integers(12, 36)), int(rng.integers(6, 10))
        mask = np.zeros((48, 64), np.uint8)
        if kind == 1:
            cv2.circle(mask, (x, y), size, 1, -1)
        else:
            cv2.rectangle(mask, (x - size, y - size), (x + size, y + size), 1, -1)
        image[mask > 0] = (220, 40 * kind, 40)
        classes[mask > 0] = kind
        distance = np.hypot(*(np.indices((48, 64)) - np.array([y, x])[:, None, None]))
        heat = np.maximum(heat, np.exp(-((distance / size) ** 2))[..., None].astype(np.float32))
    return {"image": image, "semseg": classes, "heat": heat}


class ToyShapes(tfds.core.GeneratorBasedBuilder):
    name = "toy_shapes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png"),
            "semseg": tfds.features.Image(shape=(None, None, 1), dtype=np.uint8, encoding_format="png"),
            "heat": tfds.features.Tensor(shape=(None, None, 1), dtype=np.float32, encoding="zlib"),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 8), "val": self._generate_examples(100, 3)}

    def _generate_examples(self, start, count):
        for i in range(count):
            drawn = draw(start + i)
            png = {key: cv2.imencode(".png", drawn[key][..., ::-1])[1].tobytes() for key in ("image", "semseg")}
            yield i, {"id": f"shape_{start + i}", **png, "heat": drawn["heat"]}


data.register_builder("toy_shapes", __name__)
data.register(
    data.Dataset(
        name="shapes",
        tasks=("semseg", "heat"),
        class_names={"semseg": CLASSES},
        image_size=(48, 64),
        builders={"v1": "toy_shapes"},
        recipes={"v1": "astmt"},
    )
)
