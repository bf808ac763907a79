"""The device mesh, and the placement of arrays on it.

Batches are split along their first axis. The training state is replicated or split.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
LEAST_SIZE = 2**14  # least number of elements of a split array; splitting smaller ones costs more than it saves


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Creates a mesh with one axis.

    Args:
        devices: Devices of the mesh; None means all devices of all processes.
    """
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of arrays of which every device holds a copy."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(shape: Sequence[int], mesh: Mesh | AbstractMesh, *, split: bool) -> NamedSharding:
    """Returns the sharding of an array of the training state.

    Args:
        shape: Shape of the array.
        mesh: Devices that hold the array.
        split: True to split arrays of at least `LEAST_SIZE` elements along the longest axis whose length is a multiple
            of the number of devices (the last one of equally long axes). Arrays without such an axis, smaller arrays,
            and all arrays if False, are replicated.
    """
    axes = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
    if not split or not axes or np.prod(shape) < LEAST_SIZE:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(AXIS if axis == longest else None for axis in range(len(shape)))))


def check_batch_size(batch_size: int, mesh: Mesh, name: str, micro_batches: int = 1) -> None:
    """Checks that every device gets the same number of images of each micro-batch.

    Args:
        batch_size: Number of images in the global batch.
        mesh: Devices that share the batch.
        name: Name of the option for the batch size, for the error message.
        micro_batches: Number of micro-batches into which the batch is divided.

    Raises:
        ValueError: the batch size is no multiple of the number of devices times `micro_batches`.
    """
    least = mesh.size * micro_batches
    if batch_size % least:
        parts = f" in {micro_batches} micro-batches" if micro_batches > 1 else ""
        raise ValueError(
            f"{name} is {batch_size}, which {mesh.size} devices cannot share evenly{parts}; make it a multiple of "
            f"{least}"
        )


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts a batch on the devices, split along its first axis.

    Args:
        batch: Part of this process of the global batch, `{name: [B / processes, ...]}`.
        mesh: Devices that share the batch.

    Returns:
        The global batch, `{name: [B, ...]}`.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def place(tree: Any, shardings: Any) -> Any:
    """Puts arrays on the devices. Every process must hold the whole arrays, with equal values.

    Args:
        tree: Pytree of host or device arrays.
        shardings: Pytree with the sharding of each leaf.
    """

    def put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, shardings)
