"""Evaluation protocols: the rules by which predictions become the numbers that papers quote.

Numbers of different protocols are not comparable, so a full description of the protocol stands beside every result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from mtl_jax import tasks as task_table
from mtl_jax.registry import Registry
from mtl_jax.tasks import Criterion

if TYPE_CHECKING:
    from mtl_jax import boundaries


@dataclass(frozen=True)
class EdgeRule:
    """The rules by which edges are scored.

    Attributes:
        protocol: Key of `boundaries.PROTOCOLS`.
        max_dist: Distance up to which boundaries match, as a fraction of the image's diagonal.
        images: Images that count: "all" of the split, or "pascal_context", the 2498 of
            `boundaries.pascal_context_ids`.
    """

    protocol: str
    max_dist: float = 0.0075
    images: str = "all"

    def __str__(self) -> str:
        return f"{self.protocol}, maxDist {self.max_dist:g}, {self.images} images"

    def boundary_protocol(self) -> "boundaries.BoundaryProtocol":
        """Returns the protocol by which boundaries are matched."""
        from mtl_jax import boundaries  # only where edges are scored: the compiler behind it takes a second to load

        return boundaries.get(self.protocol, self.max_dist)

    def scored(self, image_id: str) -> bool:
        """Returns True if an image counts."""
        return self.images == "all" or image_id in _pascal_context()


@dataclass(frozen=True)
class Protocol:
    """A set of rules.

    Attributes:
        name: Key of `PROTOCOLS`.
        depth: RMSE of depth: "image" (mean over the images of each image's RMSE) or "pixel" (over all pixels).
        saliency: Score that decides saliency: "mIoU", "maxF" or "maxF_pixel".
        edges: Rules for the edges of data sets whose row has none for this protocol; None = such a row is an error.
    """

    name: str
    depth: str
    saliency: str
    edges: EdgeRule | None = None

    def describe(self, data: str, edges: str) -> dict[str, str]:
        """Returns what two results must share to be comparable; it is stored with every result.

        Args:
            data: TFDS name of the data set, with its version of the labels.
            edges: Rules for the edges of the data set as text.
        """
        return {"data": data, "depth": self.depth, "saliency": self.saliency, "edge": edges}

    def criteria(self, names: Iterable[str], *, final: bool) -> dict[str, Criterion]:
        """Returns {task: metric that decides which of two models is better}.

        Args:
            names: Names of the tasks.
            final: True for the final protocol; during training edges are ranked by their loss.
        """
        return criteria(names, saliency=self.saliency, final=final)


def criteria(names: Iterable[str], *, saliency: str, final: bool) -> dict[str, Criterion]:
    """Returns the result of `Protocol.criteria` for the part of a protocol that a report keeps.

    Args:
        names: Names of the tasks.
        saliency: Score that decides saliency: "mIoU", "maxF" or "maxF_pixel".
        final: True for the final protocol; during training edges are ranked by their loss.
    """
    rows = [task_table.get(name) for name in names]
    decisive = {row.name: row.criterion if final else row.streaming_criterion or row.criterion for row in rows}
    if "sal" in decisive:
        decisive["sal"] = Criterion(saliency, higher_is_better=True)
    return decisive


PROTOCOLS: Registry[Protocol] = Registry("protocol", "protocols", "mtl_jax.protocol.register")


def register(protocol: Protocol) -> Protocol:
    """Adds a protocol under its name, and returns it.

    Raises:
        ValueError: There is another protocol of this name.
    """
    return PROTOCOLS.register(protocol.name, protocol)


register(Protocol("survey", "image", "mIoU"))  # arXiv 2004.13379 and 2001.06902
register(Protocol("astmt", "pixel", "mIoU"))  # arXiv 1904.08918
register(Protocol("invpt", "pixel", "maxF_pixel"))  # ATRC (arXiv 2104.13874), InvPT (arXiv 2203.07997), TaskPrompter


def get(name: str, depth: str = "") -> Protocol:
    """Returns the protocol of a name.

    Args:
        name: Key of `PROTOCOLS`.
        depth: RMSE of depth, "image" or "pixel", in place of the protocol's own; empty = the protocol's own.

    Raises:
        ValueError: The name is unknown; the message lists the protocols.
    """
    protocol = PROTOCOLS[name]
    return replace(protocol, depth=depth or protocol.depth)


@cache
def _pascal_context() -> frozenset[str]:
    from mtl_jax import boundaries

    return frozenset(boundaries.pascal_context_ids())
