"""Converts a torch checkpoint into safetensors, which training reads without torch.

    python scripts/convert.py hrnet_w18_small_v2-f460c6bc.pth ~/.cache/mtl_jax/hrnet_w18.safetensors

Needs the extra "parity" (torch).
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

try:
    import torch
except ModuleNotFoundError as error:
    raise SystemExit('this script needs torch: pip install -c requirements.lock -e ".[parity]"') from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=".pth file with a state_dict")
    parser.add_argument("target", type=Path, help=".safetensors file to write")
    args = parser.parse_args()
    if not args.source.is_file():
        parser.error(f"there is no file {args.source}")
    if args.target.suffix != ".safetensors":
        parser.error(f"the target must end in .safetensors, not {args.target.suffix!r}")
    try:
        loaded = torch.load(args.source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        parser.error(f"{args.source} is no checkpoint of plain tensors: {error}")
    for wrapper in ("state_dict", "model"):
        if wrapper in loaded and isinstance(loaded[wrapper], dict):
            loaded = loaded[wrapper]
    if wrong := [key for key, value in loaded.items() if not isinstance(value, torch.Tensor)]:
        parser.error(f"{args.source} holds no state_dict: {', '.join(map(str, wrong[:5]))} are no tensors")
    arrays = {key: np.ascontiguousarray(value.numpy()) for key, value in loaded.items()}
    args.target.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, args.target)
    print(f"{args.target}: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
