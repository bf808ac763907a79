"""Validation images in the log of a run."""

import cv2
import jax
import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.drawing import panels
from mtl_jax.runtime import sharding
from mtl_jax.train import logged_images
from mtl_jax.train.loop import fit
from tests import tiny
from tests.train import runs


@pytest.mark.parametrize(
    ("labels", "number", "expected"),
    [
        ([1] * 12, 4, [0, 3, 6, 9]),
        ([1] * 3, 4, [0, 1, 2]),
        ([0, 0, 1, 2, 2, 0, 0, 0], 2, [3, 4]),  # the image with the most labels of each half
        ([1] * 5, 0, []),
    ],
)
def test_images_are_spread_over_the_split(labels, number, expected):
    assert logged_images.spread(labels, number) == expected


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        ("val_00001", "7_val_00001"),
        ("../../etc/passwd", "7_etc_passwd"),
        ("café 1", "7_caf_1"),
        ("写真", "7"),
        ("a" * 300, "7_" + "a" * 60),
    ],
)
def test_names_of_images_suit_files_and_services(image_id, expected):
    assert logged_images.name(7, image_id) == expected


def images(workdir):
    """{file: its bytes} of the logged images."""
    return {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.glob("images/*/*"))}


def test_the_padding_of_a_recipe_that_crops_is_cut_off(data_dir, monkeypatch):
    """The model gives back its input, in which the smaller image lies in the middle."""

    def step(arrays, batch):
        assert batch["image"].shape == (4, 128, 160, 3)
        return batch["index"], batch["valid"], {"depth": batch["image"][..., :1].astype(np.float32)}

    drawn = []
    monkeypatch.setattr(logged_images, "make_predict_step", lambda *args: step)
    monkeypatch.setattr(panels, "panel", lambda *args, **options: drawn.append(args) or np.zeros((8, 8, 3), np.uint8))
    config = tiny.config(data_dir, log_images=1)
    config.data.augmentation, config.data.image_size = "invpt", (128, 160)
    run = experiment.make(config)
    source = run.open_split("val", run.main_tasks)
    (logged,) = logged_images.LoggedImages(run, source, None, sharding.make_mesh()).draw(None)
    ((image, predictions, labels),) = drawn
    assert logged.caption == "val_00000"
    assert labels["depth"].shape[:2] == image.shape[:2] == (96, 128)
    np.testing.assert_array_equal(predictions["depth"], image[..., :1])


def test_every_evaluation_logs_the_same_images_and_training_stays_the_same(tmp_path, data_dir, monkeypatch):
    drawn = []
    panel = panels.panel

    def watch(image, predictions, labels, **options):
        drawn.append((image, predictions, labels, options))
        return panel(image, predictions, labels, **options)

    monkeypatch.setattr(panels, "panel", watch)
    fit(tiny.config(data_dir, eval_final_epochs=0), tmp_path / "without")
    assert not drawn
    config = tiny.config(data_dir, eval_final_epochs=0, log_images=2, loggers=("tensorboard", "csv"))
    results = fit(config, tmp_path / "straight")
    names = ["0_val_00000", "2_val_00002"]
    written = images(tmp_path / "straight")
    assert list(written) == [f"images/{name}/step_{step:08d}.jpg" for name in names for step in (3, 6)]
    # The state that was evaluated has predicted: its error on these images is of the size of that on the split.
    for image, predictions, labels, options in drawn:
        assert image.shape[:2] == labels["depth"].shape[:2] == predictions["depth"].shape[:2]
        assert options["caption"] in ("val_00000", "val_00002")
    _, predictions, labels, _ = drawn[-1]
    known = labels["depth"] != 255
    error = np.sqrt(np.mean((predictions["depth"] - labels["depth"])[known] ** 2))
    assert 0.3 * results["depth"]["rmse"] < error < 3 * results["depth"]["rmse"]
    shown = cv2.imdecode(np.frombuffer(written[f"images/{names[0]}/step_00000006.jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert max(shown.shape) <= 1200

    runs.fit_and_kill(config, tmp_path / "killed", 4)
    fit(config, tmp_path / "killed")
    assert images(tmp_path / "killed") == written
    for name in ("killed", "without"):
        jax.tree.map(
            np.testing.assert_array_equal, runs.arrays(tmp_path / "straight")[1], runs.arrays(tmp_path / name)[1]
        )
        assert runs.log(tmp_path / name) == runs.log(tmp_path / "straight")
