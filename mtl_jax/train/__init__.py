"""Training: state, steps, checkpoints, and in `loop` what ties them."""
