"""Builds data sets from their original files; otherwise training builds them at its start.

    mtl data build --dataset nyud_mt/astmt --dataset pascal_mt --manual_dir downloads
    mtl data build --dataset own_data      # a folder with a dataset.toml

Every file of every image is checked first, and all problems are reported together. The same command continues an
interrupted build. Without --manual_dir the published archives are downloaded.
"""

import argparse
from pathlib import Path

from tensorflow_datasets.core import DatasetBuilder

from mtl_jax import cli
from mtl_jax.data import catalogue, datasets, description
from mtl_jax.tasks import TASKS


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        help="TFDS builder, for example nyud_mt/astmt, or a folder with a dataset.toml (repeatable)",
    )
    parser.add_argument(
        "--data_dir", default="~/tensorflow_datasets", metavar="DIR", help="folder of the built data sets"
    )
    parser.add_argument("--manual_dir", metavar="DIR", help="folder or archive with the original files")
    parser.add_argument(
        "--num_workers", type=cli.at_least(0), metavar="N", help="number of processes; by default one for each core"
    )


def run(arguments: argparse.Namespace) -> None:
    wanted = [_resolve(name, arguments.manual_dir) for name in arguments.dataset]
    Path(arguments.data_dir).expanduser().mkdir(parents=True, exist_ok=True)
    for name, manual_dir in wanted:
        builder = datasets.prepare(name, arguments.data_dir, manual_dir, arguments.num_workers)
        cli.show(f"{name} {builder.version} in {builder.data_path}")
        for split in builder.info.splits:
            cli.show(f"  {split}: {_counts(builder, split)}")


def _resolve(name: str, manual_dir: str | None) -> tuple[str, str | None]:
    """Returns the name of a builder and the folder with its original files, which may describe itself."""
    if name.partition("/")[0] in catalogue.BUILDERS:
        return name, manual_dir
    if not Path(name).expanduser().is_dir():
        raise ValueError(
            f"--dataset {name!r} is neither a builder ({', '.join(catalogue.BUILDERS)}) nor a folder with a "
            f"{description.FILE}"
        )
    return f"folder_mt/{description.read(name).name}", name


def _counts(builder: DatasetBuilder, split: str) -> str:
    everything = builder.info.splits[split].num_examples
    partly = datasets.labelled(builder)
    counts = {
        task: len(partly[task][split]) if task in partly else everything
        for task in TASKS
        if task in builder.info.features
    }
    return f"{everything} images; " + ", ".join(f"{task} {n}" for task, n in counts.items())
