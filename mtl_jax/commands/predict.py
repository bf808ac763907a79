"""Predicts on images or a video: a map for each task, and a panel of the image, its maps and, where known, its labels.

    mtl predict --workdir runs/nyud_mtinet --images "photos/*.jpg" --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --images other/room.png --out predictions
    mtl predict --workdir runs/nyud_mtinet --split val --limit 8 --out predictions
    mtl predict --workdir runs/nyud_mtinet --images photos --tta flip --style overlay --out predictions
    mtl predict --workdir runs/nyud_mtinet --images wide.jpg --window 480x640 --overlap 0.33 --out predictions
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
from typing import Any, get_args

from mtl_jax import cli, experiment
from mtl_jax.inference import model, predict, video
from mtl_jax.inference.map_formats import MAP_FORMATS
from mtl_jax.inference.options import WINDOWS, PredictOptions
from mtl_jax.inference.placement import PLACEMENTS
from mtl_jax.inference.predict import PanelOptions
from mtl_jax.labels.keys import Style
from mtl_jax.runtime import messages

_FRAMES_PER_SECOND = 25.0
# {option: the options with one of which it has an effect}
_NEEDS = {
    "data_dir": ("split",),
    "errors": ("split",),
    "frames_per_second": ("video",),
    "format": ("images", "split"),
    "no_panels": ("images", "split"),
    "style": ("images", "split"),
    "long_side": ("images", "split"),
    "overlap": ("window",),
}
_DEFAULTS, _PANELS = PredictOptions(), PanelOptions()


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", required=True, help="directory of a training run, folder of a saved model, or hf://OWNER/NAME"
    )
    parser.add_step()
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
        default=_DEFAULTS.resize,
        help="how images get to the network: fit = aspect kept (the default), stretch = as in evaluation, none = own "
        "size",
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


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    _check(arguments)
    options = PredictOptions(
        resize=arguments.resize if arguments.window is None else WINDOWS,
        window_size=arguments.window or _DEFAULTS.window_size,
        overlap=_or_default(arguments.overlap, _DEFAULTS.overlap),
        batch_size=arguments.batch_size,
        **arguments.tta,
    )
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
    if unreadable:
        listed = messages.listing(unreadable, separator="\n")
        raise ValueError(f"{len(unreadable)} files could not be read:\n{listed}")


def _check(arguments: argparse.Namespace) -> None:
    """Refuses options that have no effect."""
    for name, needed in _NEEDS.items():
        if getattr(arguments, name) not in (None, False) and not any(getattr(arguments, each) for each in needed):
            raise ValueError(f"--{name} has an effect with {' or '.join(f'--{each}' for each in needed)} alone")


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


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
