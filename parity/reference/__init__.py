"""A PyTorch implementation of the HRNet networks, written for this suite.

Its state_dict has the recorded keys in the recorded order, and its numbers are tested against the recorded ones, so
that it can stand in for them on inputs, weights and sizes nobody recorded. Nothing in `mtl_jax` imports it.
"""
