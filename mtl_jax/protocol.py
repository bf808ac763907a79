"""Evaluation protocols: how predictions become the numbers that papers quote.

Numbers of different protocols are not comparable, so the protocol stands beside every result, in full.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from mtl_jax import tasks as task_table
from mtl_jax.tasks import Criterion

if TYPE_CHECKING:
    from mtl_jax import boundaries


@dataclass(frozen=True)
class EdgeRule:
    """How edges are scored.

    Attributes:
        protocol: key of `boundaries.PROTOCOLS`.
        max_dist: tolerance, as a fraction of the image's diagonal.
        images: "all" of the split, or "pascal_context": the 2498 of `boundaries.pascal_context_ids`.
    """

    protocol: str
    max_dist: float = 0.0075
    images: str = "all"

    def __str__(self) -> str:
        return f"{self.protocol}, maxDist {self.max_dist:g}, {self.images} images"

    def boundary_protocol(self) -> "boundaries.BoundaryProtocol":
        from mtl_jax import boundaries  # only where edges are scored: the compiler behind it takes a second to load

        return boundaries.get(self.protocol, self.max_dist)

    def scored(self, image_id: str) -> bool:
        """Whether an image counts."""
        return self.images == "all" or image_id in _pascal_context()


@dataclass(frozen=True)
class Protocol:
    """A set of rules.

    Attributes:
        name: key of `PROTOCOLS`.
        depth: "image" (mean over images of each one's RMSE) or "pixel" (over all pixels).
        saliency: what decides: "mIoU" or "maxF".
    """

    name: str
    depth: str
    saliency: str

    def describe(self, data: str, edges: str) -> dict[str, str]:
        """What results have to share to be compared, as it is stored with them.

        Args:
            data: tfds name of the data set, with its version of the labels.
            edges: the data set's rules for edges as text.
        """
        return {"data": data, "depth": self.depth, "saliency": self.saliency, "edge": edges}

    def criteria(self, names: Iterable[str], *, final: bool) -> dict[str, Criterion]:
        """{task: the metric that decides}.

        Args:
            names: of the tasks.
            final: of the final protocol; while training, edges are ranked by their loss.
        """
        return criteria(names, saliency=self.saliency, final=final)


def criteria(names: Iterable[str], *, saliency: str, final: bool) -> dict[str, Criterion]:
    """As `Protocol.criteria`, from what a report keeps of its protocol."""
    rows = [task_table.get(name) for name in names]
    found = {row.name: row.criterion if final else row.streaming_criterion or row.criterion for row in rows}
    if "sal" in found:
        found["sal"] = Criterion(saliency, higher_is_better=True)
    return found


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("survey", "image", "mIoU"),  # arXiv 2004.13379 and 2001.06902
        Protocol("astmt", "pixel", "mIoU"),  # arXiv 1904.08918
        Protocol("invpt", "pixel", "maxF"),  # ATRC (2104.13874), InvPT (2203.07997), TaskPrompter
    )
}


def get(name: str, depth: str = "") -> Protocol:
    """The protocol of this name, if wanted with another measure of depth.

    Raises:
        ValueError: no such protocol; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    return replace(PROTOCOLS[name], depth=depth or PROTOCOLS[name].depth)


@cache
def _pascal_context() -> frozenset[str]:
    from mtl_jax import boundaries

    return frozenset(boundaries.pascal_context_ids())
