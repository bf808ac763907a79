"""Predicts on images: a map for each task, and a panel of the image, its predictions and, where known, its labels.

    python scripts/predict.py --workdir runs/nyud_mtinet --images "photos/*.jpg" --out predictions
    python scripts/predict.py --workdir runs/nyud_mtinet --images photos --images other/room.png --out predictions
    python scripts/predict.py --workdir runs/nyud_mtinet --split val --limit 8 --out predictions

Writes OUT/<task>/<name>.png (depth in millimetres, and .npy in metres), OUT/panels/<name>.png and OUT/maps.json, which
says what the values mean. Photographs are turned as their EXIF orientation says. Files that cannot be read are passed
over and listed at the end; the exit status is 1 then.
"""

from pathlib import Path

from absl import flags

from mtl_jax import cli, experiment
from mtl_jax.inference import model, predict
from mtl_jax.runtime import messages

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of a training run", required=True)
_STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
_IMAGES = flags.DEFINE_multi_string("images", None, "image file, folder, or glob in quotes (repeatable)")
_SPLIT = flags.DEFINE_string("split", None, "instead of --images: a split of the run's data set, for example val")
_LIMIT = flags.DEFINE_integer("limit", 0, "greatest number of images; 0 = all", lower_bound=0)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "with --split: folder of the built data sets; by default the run's own"
)
_OUT = flags.DEFINE_string("out", None, "folder to write to", required=True)


def main() -> None:
    cli.enable_compilation_cache()
    if (_IMAGES.value is None) == (_SPLIT.value is None):
        raise ValueError("give either --images or --split NAME")
    paths = None if _IMAGES.value is None else predict.find_images(_IMAGES.value, _LIMIT.value)
    config = experiment.load_config(_WORKDIR.value)
    if _DATA_DIR.value is not None:
        config.data.data_dir = _DATA_DIR.value
    run = model.from_run(config, _WORKDIR.value, _STEP.value)
    unreadable: list[str] = []
    if paths is not None:
        samples = predict.file_samples(paths, unreadable)
    else:
        source = run.experiment.open_split(str(_SPLIT.value), run.tasks)
        samples = predict.split_samples(source, run.experiment.conventions, run.tasks, _LIMIT.value)
    written = predict.predict(run, samples, Path(_OUT.value))
    cli.show(f"{written} images: maps and panels are in {_OUT.value}")
    if unreadable:
        listed = messages.listing(unreadable, separator="\n")
        raise ValueError(f"{len(unreadable)} files could not be read:\n{listed}")


if __name__ == "__main__":
    cli.run(main)
