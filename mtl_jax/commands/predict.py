"""Predicts on images or a video: a map for each task, and a panel of the image, its maps and, where known, its labels.

    mtl predict --workdir runs/nyud_mtinet --images "photos/*.jpg" --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --images other/room.png --out predictions
    mtl predict --workdir runs/nyud_mtinet --split val --limit 8 --out predictions
    mtl predict --workdir runs/nyud_mtinet --video walk.mp4 --out walk_maps.mp4

Writes OUT/<task>/<name>.png (depth in millimetres, and .npy in metres), OUT/panels/<name>.png and OUT/maps.json, which
says what the values mean; for a video one video with the frame and its maps side by side, without sound. Photographs
are turned as their EXIF orientation says. Files that cannot be read are passed over and listed at the end; the exit
status is 1 then.
"""

import argparse
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from mtl_jax import cli, experiment
from mtl_jax.inference import model, predict, video
from mtl_jax.inference.formats import FORMATS
from mtl_jax.inference.options import RESIZES, PredictOptions
from mtl_jax.runtime import messages

_DEFAULTS = PredictOptions()


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", required=True, help="directory of a training run, folder of a saved model, or hf://OWNER/NAME"
    )
    parser.add_argument("--step", default="best", help="checkpoint: best (the default), latest or a step number")
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
        "--data_dir", metavar="DIR", help="with --split: folder of the built data sets; by default the run's own"
    )
    parser.add_argument("--out", required=True, metavar="PLACE", help="folder to write to; with --video a file, .mp4")
    parser.add_argument(
        "--format", choices=FORMATS, default="default", help="files of the maps: default, or those of the PyTorch code"
    )
    parser.add_argument("--no_panels", action="store_true", help="write the maps alone")
    parser.add_argument(
        "--resize",
        choices=RESIZES,
        default=_DEFAULTS.resize,
        help="how images get to the network: fit (the default; aspect kept), stretch (as in evaluation), none (own "
        "size) or windows (own size, in windows that overlap)",
    )
    parser.add_argument("--flip", action="store_true", help="predict the mirrored image as well, and average")
    parser.add_argument(
        "--scales", type=_scales, default=_DEFAULTS.scales, metavar="S,S", help="scales to average, as in 0.75,1,1.25"
    )
    parser.add_argument(
        "--window_size",
        type=_size,
        default=_DEFAULTS.window_size,
        metavar="HxW",
        help="size of the windows, as in 480x640; by default the network's input size",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=_DEFAULTS.overlap,
        metavar="SHARE",
        help="least part of a window that it shares with the next one",
    )
    parser.add_argument(
        "--batch_size",
        type=cli.at_least(1),
        default=_DEFAULTS.batch_size,
        metavar="N",
        help="images, or windows, that are predicted at once",
    )
    parser.add_argument(
        "--frames_per_second", type=float, default=25.0, metavar="N", help="rate of the video for a folder of frames"
    )


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    names = [each.name for each in dataclasses.fields(PredictOptions)]
    options = PredictOptions(**{name: getattr(arguments, name) for name in names})
    paths = None if arguments.images is None else predict.find_images(arguments.images, arguments.limit)
    loaded = model.load(arguments.workdir, arguments.step)
    if arguments.video is not None:
        _predict_video(loaded, options, arguments)
        return
    unreadable: list[str] = []
    samples: Iterable[predict.Sample]
    if paths is not None:
        samples = predict.file_samples(paths, unreadable)
    else:
        samples = _split_samples(loaded, arguments)
    written = predict.predict(
        loaded, samples, Path(arguments.out), options, form=arguments.format, draw_panels=not arguments.no_panels
    )
    what = "maps are" if arguments.no_panels else "maps and panels are"
    cli.show(f"{written} images: {what} in {arguments.out}")
    if unreadable:
        listed = messages.listing(unreadable, separator="\n")
        raise ValueError(f"{len(unreadable)} files could not be read:\n{listed}")


def _split_samples(loaded: model.Model, arguments: argparse.Namespace) -> Iterable[predict.Sample]:
    config = loaded.experiment.config
    if arguments.data_dir is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=arguments.data_dir))
    run = experiment.make(config)
    source = run.open_split(arguments.split, loaded.tasks)
    return predict.split_samples(source, run.conventions, loaded.tasks, arguments.limit)


def _predict_video(loaded: model.Model, options: PredictOptions, arguments: argparse.Namespace) -> None:
    written = video.predict_video(
        loaded,
        arguments.video,
        arguments.out,
        options,
        frames_per_second=arguments.frames_per_second,
        limit=arguments.limit,
    )
    cli.show(f"{written} frames: the video is {arguments.out}")


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0.75,1,1.25") from error


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d+)x(\d+)", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 480x640 (height x width)")
    return (int(sides[1]), int(sides[2]))
