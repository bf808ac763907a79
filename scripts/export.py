"""Exports the model of a run as one file that predicts without this package; the README shows how to read it.

python scripts/export.py --workdir runs/nyud_mtinet --out nyud_mtinet.zip
python scripts/export.py --workdir runs/nyud_mtinet --out nyud_mtinet.zip --batch_size 8 --platforms cuda
"""

from absl import flags

from mtl_jax import cli, experiment
from mtl_jax.inference import export

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run", required=True)
_STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
_OUT = flags.DEFINE_string("out", None, "file to write, which must not exist", required=True)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "images in a call of the program; 0 = any number", lower_bound=0)
_PLATFORMS = flags.DEFINE_list(
    "platforms", ["cpu", "cuda"], f"platforms that the program runs on, of {', '.join(export.PLATFORMS)}"
)


def main() -> None:
    description = export.export_run(
        experiment.load_config(_WORKDIR.value),
        _WORKDIR.value,
        _STEP.value,
        _OUT.value,
        batch_size=_BATCH_SIZE.value,
        platforms=_PLATFORMS.value,
    )
    named = ", ".join(description["outputs"])
    cli.show(f"{_OUT.value}: step {description['step']}, {named}, for {' and '.join(description['platforms'])}")


if __name__ == "__main__":
    cli.run(main)
