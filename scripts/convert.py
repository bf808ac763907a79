"""Converts weights between torch files, safetensors, npz and work directories.

    python scripts/convert.py checkpoint.pth weights.safetensors
    python scripts/convert.py runs/nyud_mtinet mti_net.pth --step best
    python scripts/convert.py mti_net.pth runs/imported --config configs/nyud_mtinet.py
    python scripts/convert.py checkpoint.ckpt averaged.safetensors --entry state_dict_ema

python scripts/convert.py SOURCE TARGET. SOURCE is a torch, safetensors or npz file with any suffix, or the work
directory of a run. Torch files are read without torch, and of a training checkpoint the weights alone are read. TARGET
must not exist. It is .safetensors, .npz, .pth or .pt (a state_dict; needs torch), or with --config a new work directory
at step 0, which scripts/evaluate.py and scripts/predict.py read and scripts/train.py starts from.
"""

import io
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from mtl_jax import cli, experiment, weights
from mtl_jax.runtime import atomic_files
from mtl_jax.train import initial_weights, restore

_STEP = flags.DEFINE_string(
    "step", "best", "checkpoint of SOURCE, if that is a work directory: best, latest or a step number"
)
_ENTRY = flags.DEFINE_string(
    "entry",
    "",
    "entry with the weights, if SOURCE is a training checkpoint with several, such as state_dict_ema",
)
_PREFIX = flags.DEFINE_string(
    "prefix", "", "beginning of names in SOURCE that is removed; arrays whose names begin otherwise are left out"
)
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configuration of a new work directory, FILE.py or FILE.py:key=value,..."
)
_TORCH = (".pth", ".pt")


def main(source: str, target: str) -> None:
    path, is_file = Path(target), Path(target).suffix in (*weights.WRITABLE, *_TORCH)
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it, or give another TARGET")
    if is_file and _CONFIG.value is not None:
        raise ValueError(f"--config describes a new work directory, and TARGET {path} is a file; leave --config out")
    if not is_file and _CONFIG.value is None:
        raise ValueError(
            f"TARGET {path} ends in none of {', '.join((*weights.WRITABLE, *_TORCH))}; for a new work directory, say "
            "which model the weights are of: --config FILE.py"
        )
    arrays = _read(Path(source))
    if not is_file:
        initial_weights.create_workdir(experiment.make(_CONFIG.value).config, path, arrays)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_torch(path, arrays) if path.suffix in _TORCH else weights.write_arrays(path, arrays)
    cli.show(f"{path}: {len(arrays)} arrays")


def _read(source: Path) -> dict[str, np.ndarray]:
    if source.is_dir():
        if _ENTRY.value or _PREFIX.value:
            raise ValueError(f"--entry and --prefix choose weights in a file, and SOURCE {source} is a work directory")
        config = experiment.load_config(source)
        return weights.to_torch(restore.load(config, source, _STEP.value)[1].model())
    if _STEP.present:
        raise ValueError(f"--step chooses among the checkpoints of a work directory, and SOURCE {source} is none")
    arrays = weights.read_arrays(source, _ENTRY.value)
    return weights.strip_prefix(arrays, _PREFIX.value, str(source)) if _PREFIX.value else arrays


def _write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ValueError(
            f'writing {path} needs torch: pip install -c requirements.lock -e ".[parity]"; or give a TARGET that ends '
            "in .safetensors, which torch reads with safetensors.torch.load_file"
        ) from error
    content = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(value, order="C")) for name, value in arrays.items()}, content)
    atomic_files.write(path, content.getvalue())


if __name__ == "__main__":
    cli.run(main, "SOURCE", "TARGET")
