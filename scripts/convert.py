"""Converts weights between torch files, safetensors, npz and work directories.

The same as `mtl convert`.
"""

import sys

from mtl_jax import commands

if __name__ == "__main__":
    commands.main(["convert", *sys.argv[1:]])
