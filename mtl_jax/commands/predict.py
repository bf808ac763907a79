"""Predicts on images or a video: a map for each task, and a panel of the image, its maps and, where known, its labels.

    mtl predict --workdir runs/nyud_mtinet --images "photos/*.jpg" --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --images other/room.png --out predictions
    mtl predict --workdir runs/nyud_mtinet --split val --limit 8 --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --tta flip --style overlay --out predictions
    mtl predict --workdir runs/nyud_mtinet --images wide.jpg --window 480x640 --overlap 0.33 --out predictions
    mtl predict --workdir runs/nyud_mtinet --video walk.mp4 --out walk_maps.mp4
    mtl predict --workdir runs/teacher --split train --fill --save_labels data/rooms

Writes OUT/<task>/<name>.png (depth in millimetres, and .npy in metres), OUT/panels/<name>.png and OUT/maps.json, which
says what the values mean; for a video one video with the frame and its maps side by side, without sound. Photographs
are turned as their EXIF orientation says. Files that cannot be read are passed over and listed at the end; the exit
status is 1 then.

--save_labels writes the predictions as the training labels of a folder data set instead, for another model to learn
from: mtl train folder:root=data/rooms. Its validation images are those of the run's data set, with their real labels.
"""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from mtl_jax import cli, experiment
from mtl_jax.data import datasets
from mtl_jax.inference import model, predict, teacher, video
from mtl_jax.inference.map_formats import MAP_FORMATS
from mtl_jax.inference.options import WINDOWS, PredictOptions
from mtl_jax.inference.placement import PLACEMENTS
from mtl_jax.inference.predict import PanelOptions
from mtl_jax.labels.keys import Style
from mtl_jax.runtime import messages

_FRAMES_PER_SECOND = 25.0
# {option: the options with one of which it has an effect}
_NEEDS = {
    "data_dir": ("split", "save_labels"),
    "errors": ("split",),
    "frames_per_second": ("video",),
    "format": ("images", "split"),
    "no_panels": ("images", "split"),
    "style": ("images", "split"),
    "long_side": ("images", "split"),
    "overlap": ("window",),
    "fill": ("save_labels",),
    "save_labels": ("images", "split"),
    "save_labels_confidence": ("save_labels",),
}
# {option: the options with each of which it has none}
_EXCLUDED = {
    "fill": ("images", "video"),
    "format": ("save_labels",),
    "no_panels": ("save_labels",),
    "style": ("save_labels", "no_panels"),
    "errors": ("save_labels", "no_panels"),
    "long_side": ("save_labels", "no_panels"),
}
_DEFAULTS, _PANELS = PredictOptions(), PanelOptions()


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", required=True, help="directory of a training run, folder of a saved model, or hf://OWNER/NAME"
    )
    parser.add_step()
    parser.add_weights()
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images", action="append", metavar="PLACE", help="image file, folder, or glob in quotes (repeatable)"
    )
    source.add_argument("--split", help="a split of the run's data set, for example val")
    source.add_argument("--video", metavar="PLACE", help="video file, or folder with an image for each frame")
    parser.add_argument(
        "--limit", type=cli.at_least(0), default=0, metavar="N", help="greatest number of images or frames; 0 = all"
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="with --split or --save_labels: folder of the built data sets; by default the run's own",
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", metavar="PLACE", help="folder to write to; with --video a file, .mp4")
    place.add_argument(
        "--save_labels", metavar="DIR", help="new folder for a data set whose training labels are the predictions"
    )
    parser.add_argument(
        "--save_labels_confidence",
        type=float,
        metavar="P",
        help="with --save_labels: pixels whose class, saliency or edge has a probability below P get no label; 0 by "
        "default",
    )
    parser.add_argument(
        "--fill",
        action="store_true",
        help="with --save_labels and --split: keep the labels that the run learned from, and predict the missing ones "
        "alone",
    )
    parser.add_argument(
        "--format", choices=MAP_FORMATS, help="files of the maps: default, or those of the PyTorch code"
    )
    parser.add_argument("--no_panels", action="store_true", help="write the maps alone")
    parser.add_argument(
        "--style",
        choices=get_args(Style),
        help="classes, saliency and edges of the panels: map = colours alone (the default), overlay = over the image",
    )
    parser.add_argument("--errors", action="store_true", help="with --split: show the errors of the maps in the panels")
    parser.add_argument(
        "--long_side",
        type=cli.at_least(64),
        metavar="PIXELS",
        help=f"greatest width and height of a panel; {_PANELS.long_side} by default",
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--resize",
        choices=list(PLACEMENTS),
        help="how images get to the network: fit = aspect kept (the default), pad = as fit, but small ones are not "
        "enlarged (the default of --save_labels if the run's augmentation crops), stretch = aspect not kept, "
        "none = own size",
    )
    way.add_argument(
        "--window",
        type=_size,
        metavar="HxW",
        help="predict images of their own size in windows that overlap, as in 480x640",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help=f"with --window: least part of a window that it shares with the next one; {_DEFAULTS.overlap} by default",
    )
    parser.add_argument(
        "--tta",
        type=_views,
        default={},
        metavar="flip,scales=A+B",
        help="average over more views of an image: flip = mirrored, scales = other sizes; flip,scales=0.75+1+1.25 for "
        "example",
    )
    parser.add_argument(
        "--batch_size",
        type=cli.at_least(1),
        default=_DEFAULTS.batch_size,
        metavar="N",
        help="images, or windows, that are predicted at once",
    )
    parser.add_argument(
        "--frames_per_second",
        type=float,
        metavar="N",
        help=f"with --video: rate of the video for a folder of frames; {_FRAMES_PER_SECOND:g} by default",
    )
    parser.refuse_ineffective(needs=_NEEDS, excluded=_EXCLUDED)


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    _check_split(arguments)
    options = PredictOptions(
        resize=_or_default(arguments.resize, _DEFAULTS.resize) if arguments.window is None else WINDOWS,
        window_size=arguments.window or _DEFAULTS.window_size,
        overlap=_or_default(arguments.overlap, _DEFAULTS.overlap),
        batch_size=arguments.batch_size,
        **arguments.tta,
    )
    paths = None if arguments.images is None else predict.find_images(arguments.images, arguments.limit)
    loaded = model.load(arguments.workdir, arguments.step, arguments.weights)
    if arguments.save_labels is not None:
        _save_labels(loaded, paths, options, arguments)
        return
    if arguments.video is not None:
        _predict_video(loaded, options, arguments)
        return
    unreadable: list[str] = []
    samples: Iterable[predict.Sample]
    if paths is not None:
        samples = predict.file_samples(paths, unreadable)
    else:
        samples = _split_samples(loaded, arguments)
    panel = PanelOptions(
        arguments.style or _PANELS.style, arguments.errors, _or_default(arguments.long_side, _PANELS.long_side)
    )
    written = predict.predict(
        loaded,
        samples,
        Path(arguments.out),
        options,
        form=arguments.format or "default",
        panel=None if arguments.no_panels else panel,
    )
    what = "maps are" if arguments.no_panels else "maps and panels are"
    cli.show(f"{written} images: {what} in {arguments.out}")
    _tell(unreadable)


def _tell(unreadable: list[str]) -> None:
    """Ends the command with an error that lists the files that could not be read, if there are any."""
    if unreadable:
        listed = messages.listing(unreadable, separator="\n")
        raise ValueError(f"{len(unreadable)} files could not be read:\n{listed}")


def _check_split(arguments: argparse.Namespace) -> None:
    """Refuses the validation split as the training images of a data set, whose validation images it is already."""
    if arguments.save_labels is not None and arguments.split == teacher.VAL:
        raise ValueError(
            f"--save_labels takes the split {teacher.VAL} with its real labels as the validation images of the data "
            "set, so they cannot be its training images; give --split train, or --images"
        )


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _save_labels(
    loaded: model.Model, paths: list[Path] | None, options: PredictOptions, arguments: argparse.Namespace
) -> None:
    run = _experiment(loaded, arguments)
    if arguments.resize is None and arguments.window is None:
        options = dataclasses.replace(options, resize=teacher.default_resize(run))
    val_source = run.open_split(teacher.VAL, loaded.tasks)
    unreadable: list[str] = []
    samples: Iterable[predict.Sample]
    if paths is not None:
        samples = teacher.file_samples(paths, unreadable)
    else:
        samples = _teacher_samples(run, loaded, arguments)
    written = teacher.save_labels(
        loaded,
        samples,
        val_source,
        run,
        Path(arguments.save_labels),
        options,
        confidence=_or_default(arguments.save_labels_confidence, 0.0),
    )
    cli.show(_report(written))
    _tell(unreadable)


def _teacher_samples(
    run: experiment.Experiment, loaded: model.Model, arguments: argparse.Namespace
) -> Iterable[predict.Sample]:
    """Returns the images of a split; with --fill with the labels that the run learned from."""
    tasks = loaded.tasks if arguments.fill else ()
    if arguments.fill and arguments.split == teacher.TRAIN:
        source = run.training_labels.open(tasks, every_image=True)
    else:
        source = datasets.open_split(run.prepare_data(), arguments.split, tasks)
    return teacher.split_samples(source, run, tasks, arguments.limit)


def _report(written: teacher.Written) -> str:
    """Returns the lines about a data set that was written."""
    lines = [f"{written.images[teacher.TRAIN]} training and {written.images[teacher.VAL]} validation images"]
    for task, number in written.predicted.items():
        share = f", {written.labelled[task]:.1%} of their pixels" if number else ""
        real = f"; labels of the data set on {written.real[task]}" if written.real[task] else ""
        lines.append(f"  {task}: labels of the teacher on {number} training images{share}{real}")
    recipe = shlex.quote(f"folder:root={written.folder}")
    lines.append(f"train on them: mtl train {recipe} --workdir runs/student")
    return "\n".join(lines)


def _split_samples(loaded: model.Model, arguments: argparse.Namespace) -> Iterable[predict.Sample]:
    run = _experiment(loaded, arguments)
    source = run.open_split(arguments.split, loaded.tasks)
    return predict.split_samples(source, run.conventions, loaded.tasks, arguments.limit)


def _experiment(loaded: model.Model, arguments: argparse.Namespace) -> experiment.Experiment:
    """Returns the experiment of a model, with the folder of built data sets that the options name."""
    config = loaded.experiment.config
    if arguments.data_dir is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=arguments.data_dir))
    return experiment.make(config)


def _predict_video(loaded: model.Model, options: PredictOptions, arguments: argparse.Namespace) -> None:
    written = video.predict_video(
        loaded,
        arguments.video,
        arguments.out,
        options,
        frames_per_second=_or_default(arguments.frames_per_second, _FRAMES_PER_SECOND),
        limit=arguments.limit,
    )
    cli.show(f"{written} frames: the video is {arguments.out}")


def _views(text: str) -> dict[str, Any]:
    """Returns the fields of `PredictOptions` that `flip,scales=0.75+1+1.25` means, as an option's type."""
    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, values = part.partition("=")
        if part == "flip":
            fields["flip"] = True
        elif name == "scales":
            try:
                fields["scales"] = tuple(map(float, values.split("+")))
            except ValueError as error:
                raise argparse.ArgumentTypeError(f"{values!r} is no list of scales such as 0.75+1+1.25") from error
        else:
            raise argparse.ArgumentTypeError(f"{part!r} is no view; the views are flip and scales=A+B")
    return fields


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 480x640 (height x width)")
    return (int(sides[1]), int(sides[2]))
