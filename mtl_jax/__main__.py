"""`python -m mtl_jax` is the command `mtl`."""

from mtl_jax import commands

if __name__ == "__main__":
    commands.main()
