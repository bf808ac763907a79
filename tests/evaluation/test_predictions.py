import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.evaluation import predictions
from mtl_jax.outputs import Outputs
from mtl_jax.tasks import TASKS

CHANNELS = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1, "depth": 1}
SHAPES = {"semseg": (), "human_parts": (), "sal": (1,), "normals": (3,), "edge": (1,), "depth": (1,)}


def logits(images, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {task: jnp.asarray(rng.standard_normal((images, 4, 5, c)), dtype) for task, c in CHANNELS.items()}


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forms_keep_the_batch_axis(images, dtype):
    outputs = logits(images, dtype)
    got = jax.jit(lambda o: predictions.postprocess(Outputs(o), CHANNELS))(outputs)
    for task, value in got.items():
        assert value.shape == (images, 4, 5, *SHAPES[task])
        assert value.dtype == (jnp.int32 if TASKS[task].kind.has_classes else jnp.float32)


def test_values():
    logits = {
        "semseg": jnp.array([[[[0.0, 2.0, 1.0]]]]),
        "edge": jnp.array([[[[0.0]]]]),
        "normals": jnp.array([[[[0.0, 0.0, -2.0], [0.0, 0.0, 0.0]]]]),
        "depth": jnp.array([[[[-1.5]]]]),
        "sal": jnp.zeros((1, 1, 1, 1)),
    }
    got = predictions.postprocess(Outputs(logits), ("semseg", "edge", "normals", "depth"))
    assert set(got) == {"semseg", "edge", "normals", "depth"}  # an auxiliary output is left out
    assert got["semseg"].tolist() == [[[1]]]
    assert got["edge"].tolist() == [[[[127.5]]]]
    assert got["normals"].tolist() == [[[[127.5, 127.5, 0.0], [127.5] * 3]]]
    assert got["depth"].tolist() == [[[[-1.5]]]]


def test_missing_output_is_named():
    with pytest.raises(ValueError, match="lack depth; they have: edge"):
        predictions.postprocess(Outputs({"edge": jnp.zeros((1, 1, 1, 1))}), ("edge", "depth"))


@pytest.mark.parametrize("task", CHANNELS)
@pytest.mark.parametrize("size", [(4, 5), (9, 7), (3, 2)])
def test_resize_keeps_the_form(task, size):
    one = np.asarray(predictions.postprocess(Outputs(logits(1)), [task])[task])[0]
    got = predictions.resize_prediction(task, one, size)
    assert got.shape == (*size, *SHAPES[task])
    assert got.dtype == one.dtype
    if size == (4, 5):
        np.testing.assert_array_equal(got, one)
    if TASKS[task].kind.prediction_interpolation == "nearest":
        assert set(np.unique(got)) <= set(np.unique(one))


def test_resize_wants_one_image():
    with pytest.raises(ValueError, match="one image"):
        predictions.resize_prediction("sal", np.zeros((2, 4, 5, 1)), (4, 5))


def test_quantise_truncates_and_saturates():
    got = predictions.quantise("sal", np.array([-0.5, 0.9, 254.99, 255.0, 300.0]))
    assert got.dtype == np.uint8
    assert got.tolist() == [0, 0, 254, 255, 255]
    depth = predictions.quantise("depth", np.array([1.25, -1.0]))
    assert depth.dtype == np.float32
    assert depth.tolist() == [1.25, -1.0]


@pytest.mark.parametrize("task", CHANNELS)
def test_files_round_trip(task, tmp_path):
    one = np.asarray(predictions.postprocess(Outputs(logits(1)), [task])[task])[0]
    path = predictions.file_path(tmp_path / "new", task, "2008_000.0")
    written = predictions.save(task, one, path)
    assert written == tmp_path / "new" / task / ("2008_000.0" + (".mat" if task == "depth" else ".png"))
    got, want = predictions.load(task, path), predictions.quantise(task, one)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    with pytest.raises(FileNotFoundError, match="no prediction of task"):
        predictions.load(task, path.with_name("other"))


@pytest.mark.parametrize("task", ["semseg", "depth"])
def test_a_file_that_a_power_cut_emptied_is_predicted_again(tmp_path, task):
    path = predictions.save(task, np.ones((4, 5), np.float32), predictions.file_path(tmp_path, task, "1"))
    assert predictions.saved(tmp_path, [task], "1")
    size = path.stat().st_size
    for content in (b"", bytes(size)):
        path.write_bytes(content)
        assert not predictions.saved(tmp_path, [task], "1")
