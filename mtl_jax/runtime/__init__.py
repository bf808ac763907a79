"""Access to the machine of a run: devices, processes, worker processes, memory, files, and downloads."""

from mtl_jax.runtime.allocator import tune_allocator

__all__ = ["tune_allocator"]
