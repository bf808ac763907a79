"""The networks that show every method: on all of them a default run of the parity suite compares every number."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A network and the size of its batch.

    Attributes:
        method: key of `mtl_jax.models.MODELS`.
        backbone: key of `mtl_jax.backbones.BACKBONES`.
        dataset: "nyud" or "pascal".
        tasks: main tasks, in the order of the task table.
        aux_tasks: tasks of intermediate predictions, in that order.
        optimizer: "adam" or "sgd".
        images: number of images in the batch.
        size: (height, width) of the images.
    """

    method: str
    backbone: str
    dataset: str
    tasks: tuple[str, ...]
    aux_tasks: tuple[str, ...] = ()
    optimizer: str = "adam"
    images: int = 3
    size: tuple[int, int] = (65, 97)

    @property
    def row(self) -> str:
        """Name in the table of results."""
        return f"{self.method}, {self.backbone}"

    @property
    def all_tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.tasks, *self.aux_tasks)))

    @property
    def fusion(self) -> tuple[float, float] | None:
        """(alpha, beta) of cross-stitch networks and NDDR-CNN: the configuration's defaults."""
        return (0.9, 0.1) if self.method in ("cross_stitch", "nddr_cnn") else None

    @property
    def rates(self) -> tuple[float, float]:
        """(learning rate, weight decay), as in the recorded networks."""
        return {"adam": 1e-4, "sgd": 5e-3}[self.optimizer], 1e-4


_PASCAL = ("human_parts", "sal", "edge")
_NYUD = ("semseg", "depth")
# The methods of the original on the backbones that it offers for them.
CASES = (
    Case("single_task", "hrnet_w18", "nyud", ("depth",)),
    Case("baseline", "hrnet_w18", "pascal", _PASCAL),
    Case("pad_net", "hrnet_w18", "nyud", _NYUD, ("semseg", "edge", "depth")),
    Case("mti_net", "hrnet_w18", "nyud", _NYUD, ("semseg", "normals", "depth")),
    Case("single_task", "resnet18_dilated", "pascal", ("semseg",), optimizer="sgd"),
    Case("baseline", "resnet50_dilated", "nyud", ("normals", "depth"), optimizer="sgd"),
    Case("cross_stitch", "resnet18_dilated", "pascal", ("human_parts", "edge"), optimizer="sgd", images=2),
    Case("nddr_cnn", "resnet18_dilated", "nyud", _NYUD, optimizer="sgd", images=2),
    Case("mtan", "resnet18_dilated", "pascal", ("semseg", "sal"), optimizer="sgd"),
)
