"""The tfds builder of the embedded data set: labelled scenes from a ray caster, without a download."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from mtl_jax.codecs import pictures
from mtl_jax.data.rendered import people, rooms
from mtl_jax.runtime import workers

_SAMPLERS = {"nyud": rooms.sample, "pascal": people.sample}
_SPLITS = ("train", "val")
_FEWEST_FOR_POOL = 32  # starting worker processes costs about as much as drawing this many images


@dataclasses.dataclass(eq=False, kw_only=True)
class RenderedConfig(tfds.core.BuilderConfig):
    """The size and content of a rendered data set.

    Attributes:
        name: Name of the configuration and of its folder. Different settings need different names.
        kind: "nyud" for rooms with the labels of NYUD, or "pascal" for pictures with the labels of PASCAL.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        num_train: Number of training images.
        num_val: Number of validation images.
        seed: Seed of the random numbers. Image i of a split depends only on the seed, the split, i and the size.
    """

    kind: str = "nyud"
    height: int = 240
    width: int = 320
    num_train: int = 400
    num_val: int = 100
    seed: int = 0

    def __post_init__(self):
        if self.kind not in _SAMPLERS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(map(repr, _SAMPLERS))}")
        for field, least in (("height", 32), ("width", 32), ("num_train", 1), ("num_val", 1), ("seed", 0)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{field} is {value!r}; it must be an integer of at least {least}")

    def settings(self) -> dict[str, Any]:
        """Returns the settings on which the images depend."""
        return {key: getattr(self, key) for key in ("kind", "height", "width", "num_train", "num_val", "seed")}


def draw(kind: str, height: int, width: int, seed: int, split: str, index: int) -> dict[str, np.ndarray]:
    """Draws an image of a split and its labels, {feature: `[H, W, channels]`}; see `RenderedScenes` for the features.

    Args:
        kind: "nyud" or "pascal".
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the data set.
        split: Name of the split, "train" or "val".
        index: Index of the image in the split.
    """
    return _SAMPLERS[kind](np.random.default_rng([seed, _SPLITS.index(split), index]), height, width)


def _jpeg(array: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", array[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _encoded(kind: str, height: int, width: int, seed: int, split: str, index: int) -> dict[str, Any]:
    """Returns the example that tfds writes; encoded images and class maps spare tfds the import of TensorFlow."""
    example: dict[str, Any] = {}
    for key, value in draw(kind, height, width, seed, split, index).items():
        encode = _jpeg if key == "image" else pictures.encode_png if value.dtype == np.uint8 else np.ascontiguousarray
        example[key] = encode(value)
    return {"id": f"{split}_{index:05d}", **example}


class RenderedScenes(tfds.core.GeneratorBasedBuilder):
    """Rendered scenes with dense labels: a substitute for NYUD and PASCAL that needs no download.

    Features of the kind "nyud": `id`, `image` (uint8 RGB), `semseg` (NYUD's 40 classes counted from 0, of which the
    scenes use `rooms.CLASSES`; 255 is void), `depth` (float32 metres along the optical axis, 0 is invalid), `normals`
    (float32 unit vectors: x right, y away from the camera, z up; zero is invalid), `edge` (0 or 255).
    Features of the kind "pascal": `id`, `image`, `semseg` (VOC's ids, of which the pictures use `people.CLASSES`; 0 is
    background, 255 is void), `human_parts` (`people.PARTS`, all zero without a person), `sal` (0 or 255), `normals`
    (zero in the sky), `edge`. Arrays are [H, W, channels].
    """

    name = "rendered_scenes"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        RenderedConfig(name="nyud"),
        RenderedConfig(name="nyud_tiny", height=96, width=128, num_train=12, num_val=5),
        RenderedConfig(name="pascal", kind="pascal", height=256, width=256),
        RenderedConfig(name="pascal_small", kind="pascal", height=96, width=96),
        RenderedConfig(name="pascal_tiny", kind="pascal", height=96, width=96, num_train=12, num_val=5),
    ]

    def __init__(self, *, num_workers: int | None = None, file_format: Any = None, **kwargs: Any):
        self._num_workers = num_workers
        super().__init__(file_format=file_format or tfds.core.FileFormat.ARRAY_RECORD, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        image = partial(tfds.features.Image, dtype=np.uint8)
        png = partial(image, shape=(None, None, 1), encoding_format="png")
        dense = partial(tfds.features.Tensor, dtype=np.float32, encoding=tfds.features.Encoding.ZLIB)
        features = {
            "id": tfds.features.Text(),
            "image": image(shape=(None, None, 3), encoding_format="jpeg"),
            "semseg": png(),
            "normals": dense(shape=(None, None, 3)),
            "edge": png(),
        }
        if self.builder_config.kind == "nyud":
            features["depth"] = dense(shape=(None, None, 1))
        else:
            features |= {"human_parts": png(), "sal": png()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=RenderedScenes.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # example i of a split must be image i, and the loader shuffles
            metadata=tfds.core.MetadataDict(self.builder_config.settings()),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Renders the scenes unless they are there; see `tfds.core.DatasetBuilder.download_and_prepare`.

        Raises:
            ValueError: the folder holds scenes of the same name that were rendered with other settings.
        """
        super().download_and_prepare(**kwargs)
        stored, wanted = dict(self.info.metadata), self.builder_config.settings()
        if stored != wanted:
            raise ValueError(f"{self.data_dir} holds scenes with {stored}, not {wanted}; use another name or remove it")

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self.builder_config
        return {
            "train": self._generate_examples("train", config.num_train),
            "val": self._generate_examples("val", config.num_val),
        }

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        job = partial(_encoded, config.kind, config.height, config.width, config.seed, split)
        drawn = workers.map_ordered(job, range(count), num_workers=self._num_workers, fewest=_FEWEST_FOR_POOL)
        yield from enumerate(tqdm(drawn, f"drawing {split}", count, unit="image"))
