import logging

import numpy as np
import pytest

from mtl_jax import weights

ARRAYS = {"conv1.weight": np.ones((2, 3), np.float32), "layer1.0.bias": np.zeros(3, np.float32)}


@pytest.mark.parametrize("suffix", weights.WRITABLE)
def test_a_file_of_the_user(tmp_path, suffix):
    arrays = {f"module.{name}": value for name, value in ARRAYS.items()}
    weights.write_arrays(tmp_path / f"x{suffix}", arrays)
    assert weights.read_pretrained(tmp_path / f"x{suffix}").keys() == ARRAYS.keys()


def test_a_prefix_is_named(tmp_path, caplog):
    arrays = {f"encoder_q.{name}": value for name, value in ARRAYS.items()} | {"encoder_k.conv1.weight": np.ones(1)}
    weights.write_arrays(tmp_path / "x.npz", arrays)
    with caplog.at_level(logging.INFO):
        assert weights.read_pretrained(tmp_path / "x.npz", prefix="encoder_q.").keys() == ARRAYS.keys()
    assert "encoder_k.conv1.weight" in caplog.text
