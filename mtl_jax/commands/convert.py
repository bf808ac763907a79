"""Converts weights between torch files, safetensors, npz and work directories.

    mtl convert checkpoint.pth weights.safetensors
    mtl convert runs/nyud_mtinet mti_net.pth --step best
    mtl convert mti_net.pth runs/imported --config nyud_mtinet
    mtl convert checkpoint.ckpt averaged.safetensors --entry state_dict_ema

SOURCE is a torch, safetensors or npz file with any suffix, or the work directory of a run. Torch files are read without
torch, and of a training checkpoint the weights alone are read. TARGET must not exist. It is .safetensors, .npz, .pth or
.pt (a state_dict; needs torch), or with --config a new work directory at step 0, which `mtl evaluate` and `mtl predict`
read and `mtl train` starts from.
"""

import argparse
import io
from pathlib import Path

import numpy as np

from mtl_jax import cli, experiment, weights
from mtl_jax.runtime import atomic_files, messages
from mtl_jax.train import initial_weights, restore

_TORCH = (".pth", ".pt")


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="file with weights, or work directory")
    parser.add_argument("target", metavar="TARGET", help="file to write, or with --config a new work directory")
    parser.add_argument(
        "--step", help="checkpoint of SOURCE, if that is a work directory: best (the default), latest or a step number"
    )
    parser.add_weights()
    parser.add_argument(
        "--entry",
        default="",
        help="entry with the weights, if SOURCE is a training checkpoint with several, such as state_dict_ema",
    )
    parser.add_argument(
        "--prefix",
        default="",
        help="beginning of names in SOURCE that is removed; arrays whose names begin otherwise are left out",
    )
    parser.add_config(required=False, positional=False)


def run(arguments: argparse.Namespace) -> None:
    path = Path(arguments.target)
    is_file = path.suffix in (*weights.WRITABLE, *_TORCH)
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it, or give another TARGET")
    if is_file and arguments.config is not None:
        raise ValueError(f"--config describes a new work directory, and TARGET {path} is a file; leave --config out")
    if not is_file and arguments.config is None:
        raise ValueError(
            f"TARGET {path} ends in none of {', '.join((*weights.WRITABLE, *_TORCH))}; for a new work directory, say "
            "which model the weights are of: --config RECIPE"
        )
    arrays = _read(Path(arguments.source), arguments)
    if not is_file:
        initial_weights.create_workdir(experiment.make(arguments.config).config, path, arrays)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_torch(path, arrays) if path.suffix in _TORCH else weights.write_arrays(path, arrays)
    cli.show(f"{path}: {len(arrays)} arrays")


def _read(source: Path, arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    if source.is_dir():
        if arguments.entry or arguments.prefix:
            raise ValueError(f"--entry and --prefix choose weights in a file, and SOURCE {source} is a work directory")
        config = experiment.load_config(source)
        chosen = restore.load(config, source, arguments.step or "best", arguments.weights)
        return weights.to_torch(chosen.state.model())
    for name, value in (("step", arguments.step), ("weights", arguments.weights)):
        if value:
            raise ValueError(f"--{name} chooses in the checkpoints of a work directory, and SOURCE {source} is none")
    arrays = weights.read_arrays(source, arguments.entry)
    return weights.strip_prefix(arrays, arguments.prefix, str(source)) if arguments.prefix else arrays


def _write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ValueError(
            f"writing {path} needs torch: {messages.install('parity')}; or give a TARGET that ends in .safetensors, "
            "which torch reads with safetensors.torch.load_file"
        ) from error
    content = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(value, order="C")) for name, value in arrays.items()}, content)
    atomic_files.write(path, content.getvalue())
