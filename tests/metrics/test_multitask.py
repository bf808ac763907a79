import pytest

from mtl_jax.metrics import delta_m

SINGLE = {"semseg": {"mIoU": 0.4, "x": 1}, "depth": {"rmse": 0.5}}


def test_the_sign_follows_the_direction_of_the_criterion():
    results = {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 0.6}}
    assert delta_m(results, SINGLE, ["semseg"]) == pytest.approx(0.25)
    assert delta_m(results, SINGLE, ["depth"]) == pytest.approx(-0.2)
    assert delta_m(results, SINGLE, ["semseg", "depth"]) == pytest.approx(0.025)
    assert delta_m(SINGLE, SINGLE, ["semseg", "depth"]) == 0


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="reference lack task 'normals'; they have: semseg, depth"):
        delta_m({"normals": {"mean": 1.0}}, SINGLE, ["normals"])
    with pytest.raises(ValueError, match="results of task 'depth' lack 'rmse'; they have: delta1"):
        delta_m({"depth": {"delta1": 1.0}}, SINGLE, ["depth"])
    with pytest.raises(ValueError, match="at least one task"):
        delta_m(SINGLE, SINGLE, [])
    with pytest.raises(ValueError, match="mIoU = 0"):
        delta_m(SINGLE, {"semseg": {"mIoU": 0.0}}, ["semseg"])
