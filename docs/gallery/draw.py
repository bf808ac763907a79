"""Draws the pictures of this folder from the embedded scenes; predictions are those of the model of `make demo`.

python docs/gallery/draw.py --workdir runs/demo
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtl_jax import experiment, tasks
from mtl_jax.data import augmentation, catalogue
from mtl_jax.data.rendered import builder
from mtl_jax.drawing import contact_sheet, panels
from mtl_jax.inference.restored import Restored

HERE = Path(__file__).parent
LONG_SIDE = 1300  # pixels
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 78, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
ROOMS, PEOPLE = ("nyud", 240, 320), ("pascal", 256, 256)  # kind, height and width of scenes
CONVENTIONS = catalogue.conventions("nyud", "rendered_scenes/nyud")


def scene(kind: str, height: int, width: int, index: int) -> dict[str, Any]:
    """Returns a validation scene: its id, its image and its canonical labels `[H, W, C]`."""
    drawn = builder.draw(kind, height, width, 0, "val", index)
    labels = {
        task: tasks.get(task).kind.decode(value, CONVENTIONS) for task, value in drawn.items() if task in tasks.TASKS
    }
    return {"id": f"val_{index:05d}", "image": drawn["image"], **labels}


def predict(run: Restored, image: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {task: prediction at the resolution of the network} of one image."""
    ready = augmentation.val_transform({"image": image}, run.experiment.image_size)["image"]
    batch = {
        "image": np.repeat(ready[None], run.mesh.size, axis=0),
        "valid": np.arange(run.mesh.size) == 0,
        "index": np.zeros(run.mesh.size, np.int32),
    }
    ((_, maps),) = run.predict_batches([batch])
    return maps


def write(name: str, picture: np.ndarray) -> None:
    """Writes a picture RGB uint8 `[H, W, 3]` to NAME.jpg in this folder."""
    cv2.imwrite(str(HERE / f"{name}.jpg"), picture[..., ::-1], QUALITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="work directory of a training with configs/demo.py")
    workdir = parser.parse_args().workdir
    stored = experiment.make(experiment.load_config(workdir))
    run = Restored(stored, workdir, "best")

    room, other = scene(*ROOMS, 13), scene(*ROOMS, 4)
    write(
        "predictions",
        panels.panel(
            room["image"],
            predict(run, room["image"]),
            {task: room[task] for task in run.tasks},
            names=stored.class_names,
            conventions=CONVENTIONS,
            errors=True,
            long_side=LONG_SIDE,
        ),
    )
    write(
        "overlay",
        panels.panel(
            other["image"],
            predict(run, other["image"]),
            names=stored.class_names,
            conventions=CONVENTIONS,
            style="overlay",
            long_side=LONG_SIDE,
        ),
    )
    for name, place in (("rooms", ROOMS), ("people", PEOPLE)):
        row = catalogue.get(place[0])
        samples = [scene(*place, index) for index in (1, 3)]
        sheet = contact_sheet.sheet(samples, row.tasks, height=190, names=row.class_names, conventions=CONVENTIONS)
        write(name, sheet)


if __name__ == "__main__":
    main()
