"""Activations and stored predictions against arrays and files recorded from the reference."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.evaluation import predictions
from mtl_jax.outputs import Outputs
from mtl_jax.tasks import TASKS
from parity import golden


@pytest.fixture(scope="module")
def arrays():
    return golden.arrays("metrics.npz")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_postprocess(arrays, task, batch):
    logits = jnp.asarray(np.moveaxis(arrays[f"get_output/{task}_b{batch}/input"], 1, -1))
    got, want = (
        predictions.postprocess(Outputs({task: logits}), [task])[task],
        arrays[f"get_output/{task}_b{batch}/output"],
    )
    assert len(got) == batch
    if want.shape != got.shape:  # the reference drops the channel of saliency and edges, and a batch of one
        assert task in ("sal", "edge")
        assert want.shape == (batch, 5, 6)[batch == 1 :]
        want = want.reshape(got.shape)
    if TASKS[task].kind.has_classes:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-5)  # of 255, in float32


@pytest.mark.parametrize("task", TASKS)
def test_stored_predictions(arrays, task, tmp_path):
    for batch, images in ((0, 2), (1, 1)):
        logits = jnp.asarray(np.moveaxis(arrays[f"save/batch{batch}/output/{task}"], 1, -1))
        prediction = np.asarray(predictions.postprocess(Outputs({task: logits}), [task])[task])
        for i in range(images):
            size = tuple(int(n) for n in arrays[f"save/batch{batch}/im_size"][i])
            path = predictions.file_path(tmp_path, task, f"b{batch}i{i}")
            written = predictions.save(task, predictions.resize_prediction(task, prediction[i], size), path)
            got, want = predictions.load(task, path), arrays.get(f"save/file/{written.relative_to(tmp_path)}")
            if want is None:
                assert (task, batch, i) == ("human_parts", 0, 1)  # the reference skips an ignored label's image
            elif task in ("sal", "edge") and batch == 1:
                # the reference stores the first row over the whole image
                assert want.shape == got.shape[:2]
                assert (got[..., 0] != want).mean() > 0.5
            elif TASKS[task].kind.suffix == ".mat":
                np.testing.assert_allclose(got[..., 0], want, rtol=0, atol=1e-6)
            else:
                difference = np.abs(got.reshape(want.shape).astype(int) - want)
                # truncation: the last bit of float32 may decide about a grey level
                assert difference.max() <= (0 if TASKS[task].kind.has_classes else 1)
                assert (difference > 0).mean() < 0.01
