"""A PyTorch implementation of every recorded network, loss and score, written for this suite.

The networks' state_dicts have the recorded keys in the recorded order, and their numbers are tested against the
recorded ones, so that they can stand in for them on inputs, weights and sizes nobody recorded. Nothing in `mtl_jax`
imports it.
"""
