"""Prints the numbers of parameters and multiply-adds of models, which are counted without computing anything.

    mtl summary --markdown
    mtl summary --config nyud_mtinet --config nyud_mtinet:aux=edge+normals

Multiply-adds are counted for the prediction of one image of the data set's resolution: those of convolutions and matrix
products, without normalisation, activations and bilinear interpolation.
"""

import argparse

from mtl_jax import cli, experiment, recipes
from mtl_jax.config import Config
from mtl_jax.reports import cost

# The published experiments. Single-task models differ by a task only in the last layer: one task stands for all.
PUBLISHED = (
    "nyud_single",
    "nyud_baseline",
    "nyud_padnet",
    "nyud_padnet:aux=edge+normals",
    "nyud_mtinet",
    "nyud_mtinet:aux=edge+normals",
    "nyud_single:backbone=resnet50_dilated",
    "nyud_baseline:backbone=resnet50_dilated",
    "nyud_cross_stitch",
    "nyud_nddr_cnn",
    "nyud_mtan",
    "pascal_single",
    "pascal_baseline",
    "pascal_baseline:tasks=small",
    "pascal_padnet",
    "pascal_padnet:tasks=small",
    "pascal_mtinet",
    "pascal_mtinet:tasks=small",
    "pascal_single:backbone=resnet18_dilated",
    "pascal_baseline:backbone=resnet18_dilated",
    "pascal_cross_stitch",
    "pascal_nddr_cnn",
    "pascal_mtan",
)


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="RECIPE",
        help="recipe, with options after a colon (repeatable); by default the published ones",
    )
    parser.add_argument(
        "--markdown", action=argparse.BooleanOptionalAction, default=False, help="print a Markdown table"
    )


def load(spec: str) -> Config:
    """Returns the whole configuration of a recipe."""
    return experiment.make(experiment.resolve(recipes.load(spec))).config


def run(arguments: argparse.Namespace) -> None:
    configs = [load(spec) for spec in arguments.config or PUBLISHED]
    cli.show(cost.table([cost.summarize(config) for config in configs], markdown=arguments.markdown))
