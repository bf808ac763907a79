import logging

import numpy as np
import pytest

from mtl_jax import weights
from mtl_jax.weights import prefixes

NAMES = ("conv1.weight", "bn1.weight")


def named(prefix, *others):
    return {f"{prefix}{name}": np.zeros(1) for name in (*NAMES, "bn1.num_batches_tracked")} | {
        name: np.ones(1) for name in others
    }


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module._orig_mod.backbone.", "model.model.encoder."],
)
def test_a_prefix_is_removed_where_the_names_fit_then(prefix, caplog):
    caplog.set_level(logging.INFO, "mtl_jax")
    assert weights.fit_names(named(prefix), NAMES, "x.pth").keys() == named("").keys()
    assert caplog.messages == [f"x.pth: removes the prefix {prefix} from 3 names"]
    assert weights.fit_names(named(prefix, "head.weight"), NAMES, "x.pth").keys() == named("").keys()
    assert caplog.messages[1].endswith("from 3 names, and leaves out 1 arrays without it: head.weight")


def test_names_that_fit_stay(caplog):
    caplog.set_level(logging.INFO, "mtl_jax")
    arrays = named("", "model.conv1.weight")
    assert weights.fit_names(arrays, NAMES, "x.pth") == arrays
    for prefix in ("layers.", "modules.", "model", "x.model."):
        arrays = named(prefix)
        assert weights.fit_names(arrays, NAMES, "x.pth") == arrays
    backbone = {f"backbone.{name}": 0 for name in NAMES}
    assert weights.fit_names(named("backbone."), backbone, "x.pth") == named("backbone.")
    assert not caplog.messages
    assert weights.fit_names(named("model.backbone."), backbone, "x.pth").keys() == named("backbone.").keys()


def test_an_incomplete_model_loses_its_prefix_too():
    arrays = named("model.")
    del arrays["model.bn1.weight"]
    assert "conv1.weight" in weights.fit_names(arrays, NAMES, "x.pth")


def test_several_prefixes_that_fit_are_refused_by_name():
    arrays = named("backbone.") | named("model.encoder.")
    message = (
        r"x\.pth: names begin with 'backbone\.' and with 'model\.encoder\.', and after each 2 of 2 names of the model"
    )
    with pytest.raises(ValueError, match=message) as error:
        weights.fit_names(arrays, NAMES, "x.pth")
    assert "--model.pretrained_prefix=PREFIX" in str(error.value)
    assert weights.strip_prefix(arrays, "model.encoder.", "x.pth").keys() == named("").keys()


def test_an_unknown_prefix_is_refused():
    with pytest.raises(ValueError, match=r"x\.pth: no name begins with 'net\.'; the names are a, b"):
        weights.strip_prefix({"a": 0, "b": 0}, "net.", "x.pth")


def test_wrappers_are_removed_from_all_names_or_from_none():
    for arrays, wanted in [
        ({"module._orig_mod.a": 0, "module._orig_mod.b": 1}, {"a": 0, "b": 1}),
        ({"module._orig_mod.a": 0, "module.b": 1}, {"_orig_mod.a": 0, "b": 1}),
        ({"module.a": 0, "b": 1}, {"module.a": 0, "b": 1}),
        ({"model.a": 0}, {"model.a": 0}),
        ({}, {}),
    ]:
        assert prefixes.strip_wrappers(arrays, "x.pth") == wanted


def test_long_names_are_searched_to_a_limit():
    name = "module." * 100_000 + "conv1.weight"
    assert list(weights.fit_names({name: 0}, NAMES, "x.pth")) == [name]
    assert list(prefixes.strip_wrappers({name: 0}, "x.pth")) == [name.removeprefix("module." * 8)]
