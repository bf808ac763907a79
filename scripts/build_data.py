"""Builds data sets from their original files; otherwise training builds them at its start.

    python scripts/build_data.py --dataset nyud_mt/astmt --dataset pascal_mt --manual_dir downloads
    python scripts/build_data.py --dataset own_data      # a folder with a dataset.toml

Every file of every image is checked first, and all problems are reported together. The same command continues an
interrupted build. Without --manual_dir the published archives are downloaded.
"""

from pathlib import Path

import tensorflow_datasets as tfds
from absl import flags

from mtl_jax import cli
from mtl_jax.data import catalogue, datasets, description
from mtl_jax.tasks import TASKS

_DATASETS = flags.DEFINE_multi_string(
    "dataset",
    None,
    "TFDS builder, for example nyud_mt/astmt, or a folder with a dataset.toml (repeatable)",
    required=True,
)
_DATA_DIR = flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "folder of the built data sets")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "folder or archive with the original files")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "number of processes; by default one for each core", lower_bound=0
)


def main() -> None:
    wanted = [_resolve(name) for name in _DATASETS.value]
    Path(_DATA_DIR.value).expanduser().mkdir(parents=True, exist_ok=True)
    for name, manual_dir in wanted:
        builder = datasets.prepare(name, _DATA_DIR.value, manual_dir, _NUM_WORKERS.value)
        cli.show(f"{name} {builder.version} in {builder.data_path}")
        for split in builder.info.splits:
            cli.show(f"  {split}: {_counts(builder, split)}")


def _resolve(name: str) -> tuple[str, str | None]:
    """Returns the name of a builder and the folder with its original files, which may describe itself."""
    if name.partition("/")[0] in catalogue.BUILDERS:
        return name, _MANUAL_DIR.value
    if not Path(name).expanduser().is_dir():
        raise ValueError(
            f"--dataset {name!r} is neither a builder ({', '.join(catalogue.BUILDERS)}) nor a folder with a "
            f"{description.FILE}"
        )
    return f"folder_mt/{description.read(name).name}", name


def _counts(builder: tfds.core.DatasetBuilder, split: str) -> str:
    everything = builder.info.splits[split].num_examples
    partly = datasets.labelled(builder)
    counts = {
        task: len(partly[task][split]) if task in partly else everything
        for task in TASKS
        if task in builder.info.features
    }
    return f"{everything} images; " + ", ".join(f"{task} {n}" for task, n in counts.items())


if __name__ == "__main__":
    cli.run(main)
