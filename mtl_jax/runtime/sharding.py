"""The device mesh and what lies on it: batches split along their first axis, the state whole or in parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
LEAST_SIZE = 2**14  # elements of an array that is worth splitting: a transfer costs more than it saves below


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices along one axis, by default all of all processes."""
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(shape: Sequence[int], mesh: Mesh | AbstractMesh, *, split: bool) -> NamedSharding:
    """Where an array of the training state lies.

    Args:
        split: arrays of at least `LEAST_SIZE` elements are split along the longest axis that the devices can share
            evenly, the last of equals; without one, and by default, every device holds the whole array.
    """
    axes = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
    if not split or not axes or np.prod(shape) < LEAST_SIZE:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(AXIS if axis == longest else None for axis in range(len(shape)))))


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


def place(tree: Any, shardings: Any) -> Any:
    """Host or device arrays where they are to lie; all processes must hold equal values, whole.

    Args:
        shardings: of each leaf.
    """

    def put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)
