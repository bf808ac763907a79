"""Prints the numbers of parameters and multiply-adds of models, which are counted without computing anything.

    python scripts/summary.py --markdown
    python scripts/summary.py --config configs/nyud_mtinet.py --config configs/nyud_mtinet.py:aux=edge+normals

Multiply-adds are counted for the prediction of one image of the data set's resolution: those of convolutions and matrix
products, without normalisation, activations and bilinear interpolation.
"""

import runpy
from pathlib import Path

from absl import flags

from mtl_jax import cli, experiment
from mtl_jax.config import Config
from mtl_jax.reports import cost

CONFIGS = Path(__file__).parents[1] / "configs"
# The shipped experiments. Single-task models differ by a task only in the last layer: one task stands for all.
SHIPPED = (
    "nyud_single.py",
    "nyud_baseline.py",
    "nyud_padnet.py",
    "nyud_padnet.py:aux=edge+normals",
    "nyud_mtinet.py",
    "nyud_mtinet.py:aux=edge+normals",
    "nyud_single.py:backbone=resnet50_dilated",
    "nyud_baseline.py:backbone=resnet50_dilated",
    "nyud_cross_stitch.py",
    "nyud_nddr_cnn.py",
    "nyud_mtan.py",
    "pascal_single.py",
    "pascal_baseline.py",
    "pascal_baseline.py:tasks=small",
    "pascal_padnet.py",
    "pascal_padnet.py:tasks=small",
    "pascal_mtinet.py",
    "pascal_mtinet.py:tasks=small",
    "pascal_single.py:backbone=resnet18_dilated",
    "pascal_baseline.py:backbone=resnet18_dilated",
    "pascal_cross_stitch.py",
    "pascal_nddr_cnn.py",
    "pascal_mtan.py",
)

_CONFIG = flags.DEFINE_multi_string(
    "config", [], "configuration, FILE.py or FILE.py:key=value,... (repeatable); by default the shipped ones"
)
_MARKDOWN = flags.DEFINE_bool("markdown", False, "print a Markdown table")


def load(spec: str) -> Config:
    """Returns the configuration of `FILE.py` or `FILE.py:argument`."""
    path, _, argument = spec.partition(":")
    if not Path(path).is_file():
        raise FileNotFoundError(f"--config is {spec!r} and there is no file {path}; give one of {CONFIGS.name}/*.py")
    return experiment.make(experiment.resolve(runpy.run_path(path)["get_config"](argument or None))).config


def main() -> None:
    configs = [load(spec) for spec in _CONFIG.value or [f"{CONFIGS}/{name}" for name in SHIPPED]]
    cli.show(cost.table([cost.summarize(config) for config in configs], markdown=_MARKDOWN.value))


if __name__ == "__main__":
    cli.run(main)
