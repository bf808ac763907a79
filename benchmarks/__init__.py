"""Measuring speed: what scripts/benchmark.py runs. PyTorch's side of a comparison is in parity/reference."""
