"""Prediction on videos and folders of frames: a video with the frame and its maps side by side."""

import contextlib
import itertools
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mtl_jax.inference.image_input import as_image
from mtl_jax.inference.model import Model
from mtl_jax.inference.options import PredictOptions
from mtl_jax.inference.placement import Size
from mtl_jax.inference.predict import find_images
from mtl_jax.inference.side_by_side import SideBySide
from mtl_jax.runtime.messages import size_text

logger = logging.getLogger(__name__)

# {suffix of a video that is written: FourCC code of its codec}
CODECS: Mapping[str, str] = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}

Frames = Generator[np.ndarray, None, None]  # RGB uint8 `[H, W, 3]`


def predict_video(
    model: Model,
    source: str | Path,
    out: str | Path,
    options: PredictOptions | None = None,
    *,
    frames_per_second: float = 25.0,
    long_side: int = 1920,
    limit: int = 0,
) -> int:
    """Predicts every frame, and writes a video with the frame, its maps and their keys side by side, without sound.

    Args:
        model: The model.
        source: Video file, or folder with one image for each frame, in the order of their names.
        out: Video file to write, which ends in one of `CODECS` and does not exist.
        options: Options of prediction.
        frames_per_second: Rate of the video for a folder of frames; a video keeps its own.
        long_side: Greatest width and height of the video in pixels, except where the keys need more.
        limit: Greatest number of frames; 0 = all.

    A video that ends before the number of frames that its header says is damaged. Its frames up to there are written,
    and a warning says so.

    Returns:
        The number of frames.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: The source does not exist, or the folder has no images.
        ValueError: The source is no video, frames differ in size, or the suffix is unknown.
        OSError: The video cannot be written, or nothing can be read of what was written.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.suffix not in CODECS:
        raise ValueError(f"{out} ends in {out.suffix!r}; videos are written to files that end in {', '.join(CODECS)}")
    if out.exists():
        itself = ", which is the input itself" if source.exists() and out.samefile(source) else ""
        raise FileExistsError(f"{out} exists already{itself}; remove it, or give another file to write")
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; give a number above 0")
    frames, rate = _open(source, frames_per_second)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.partial{out.suffix}")
    drawing = SideBySide(long_side)
    written = 0
    with contextlib.ExitStack() as exits:
        exits.callback(partial.unlink, missing_ok=True)
        exits.callback(frames.close)
        writer: cv2.VideoWriter | None = None
        images = itertools.islice(frames, limit or None)
        # Closed before the frames: its thread may be reading one, and a generator that runs cannot be closed.
        predicted = exits.enter_context(contextlib.closing(model.stream(images, _same, options or PredictOptions())))
        for frame, finish in tqdm(predicted, unit="frame"):
            picture = drawing.draw(frame, finish())
            if writer is None:
                writer = _writer(partial, rate, (picture.shape[0], picture.shape[1]))
                exits.callback(writer.release)
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
            written += 1
        if writer is None:
            raise ValueError(f"{source} has no frame that can be read")
        writer.release()
        _check_written(partial, out)
        partial.replace(out)
    return written


def _open(source: Path, frames_per_second: float) -> tuple[Frames, float]:
    """Returns the frames of a video or a folder, and their rate."""
    if source.is_dir():
        return _folder_frames(find_images([str(source)])), frames_per_second
    if not source.is_file():
        raise FileNotFoundError(f"there is no video or folder of frames at {source}; check the path")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise ValueError(f"{source} is no video that OpenCV can read; convert it to .mp4")
    return _video_frames(capture, source), capture.get(cv2.CAP_PROP_FPS) or frames_per_second


def _video_frames(capture: cv2.VideoCapture, source: Path) -> Frames:
    expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less where the header does not say it
    try:
        for number in itertools.count():
            there, frame = capture.read()
            if not there:
                if number < expected:
                    logger.warning(
                        "%s ends after frame %d, and its header says %d frames: the file is damaged or cut short, and "
                        "the rest is left out",
                        source,
                        number,
                        expected,
                    )
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()


def _folder_frames(paths: Sequence[Path]) -> Frames:
    first: Size | None = None
    for path in paths:
        frame = as_image(path)
        size = (frame.shape[0], frame.shape[1])
        first = first or size
        if size != first:
            raise ValueError(
                f"{path} is {size_text(size)}, and {paths[0].name} before it {size_text(first)}; the frames of a video "
                "have one size"
            )
        yield frame


def _writer(path: Path, rate: float, size: Size) -> cv2.VideoWriter:
    code = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), code, rate, size[::-1])
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write a video of {size_text(size)} to {path}; give another folder or suffix")
    return writer


def _check_written(path: Path, out: Path) -> None:
    """Checks that a frame can be read from a video that was written; the writer tells of no error.

    Raises:
        OSError: No frame can be read.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        there = capture.isOpened() and capture.read()[0]
    finally:
        capture.release()
    if not there:
        raise OSError(f"OpenCV has written no frame to {out}; is the disk full? Make room, or give another suffix")


def _same(frame: np.ndarray) -> np.ndarray:
    return frame
