"""The device mesh and what lies on it: parameters everywhere, batches split along their first axis."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh() -> Mesh:
    """All devices of all processes along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, name: str, micro_batches: int = 1) -> None:
    """Raises ValueError unless every device gets the same number of images of each micro-batch.

    Args:
        name: of the option to change.
    """
    least = mesh.size * micro_batches
    if batch_size % least:
        parts = f" in {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise ValueError(
            f"{name} is {batch_size}, which {mesh.size} devices cannot share evenly{parts}; make it a multiple of "
            f"{least}"
        )


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch, `{name: [B / processes, ...]}`, as part of the global one on the devices."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The same host or device arrays on every device; all processes must hold equal values."""
    sharding = replicated(mesh)

    def place(leaf: jax.Array) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), leaf.shape)

    return jax.tree.map(place, tree)
