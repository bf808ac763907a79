import pytest

from mtl_jax import protocol
from mtl_jax.metrics import delta_m


def gain(results, reference, tasks):
    return delta_m(results, reference, protocol.get("survey").criteria(tasks, final=True))


SINGLE = {"semseg": {"mIoU": 0.4, "x": 1}, "depth": {"rmse": 0.5}}


def test_the_sign_follows_the_direction_of_the_criterion():
    results = {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 0.6}}
    assert gain(results, SINGLE, ["semseg"]) == pytest.approx(0.25)
    assert gain(results, SINGLE, ["depth"]) == pytest.approx(-0.2)
    assert gain(results, SINGLE, ["semseg", "depth"]) == pytest.approx(0.025)
    assert gain(SINGLE, SINGLE, ["semseg", "depth"]) == 0


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="reference lack task 'normals'; they have: semseg, depth"):
        gain({"normals": {"mean": 1.0}}, SINGLE, ["normals"])
    with pytest.raises(ValueError, match="results of task 'depth' lack 'rmse'; they have: delta1"):
        gain({"depth": {"delta1": 1.0}}, SINGLE, ["depth"])
    with pytest.raises(ValueError, match="at least one task"):
        gain(SINGLE, SINGLE, [])
    with pytest.raises(ValueError, match="mIoU = 0"):
        gain(SINGLE, {"semseg": {"mIoU": 0.0}}, ["semseg"])
