"""The choice of weights in contents of checkpoints as `torch_file` describes them."""

import logging
from pathlib import Path

import pytest

from mtl_jax.weights import entries
from mtl_jax.weights.inert_pickle import Unknown
from mtl_jax.weights.torch_file import Storage, Tensor


def state(size=1):
    tensor = Tensor(Storage("float32", "0", 1), 0, (1,), (1,))
    return {f"layer.{i}": tensor for i in range(size)}


def choose(tree, entry=""):
    return entries.choose(tree, entry, Path("x.pth"))


USUAL = ("state_dict", "model", "model_state_dict", "model_ema", "ema", "state_dict_ema", "module", "teacher")


@pytest.mark.parametrize("outer", USUAL)
def test_usual_names_are_looked_through(outer, caplog):
    caplog.set_level(logging.INFO, "mtl_jax")
    for inner in USUAL:
        wanted = state()
        assert choose({outer: {inner: wanted, "epoch": 1}, "optimizer": {"state": {}}}) == wanted
    assert caplog.messages[0] == f"x.pth: reads the entry {outer}/state_dict"
    assert choose(state(2)) == state(2)


@pytest.mark.parametrize("averaged", ["model_ema", "ema", "state_dict_ema", "teacher"])
@pytest.mark.parametrize("plain", ["state_dict", "model", "model_state_dict", "module"])
def test_plain_weights_come_before_averaged_ones(plain, averaged, caplog):
    caplog.set_level(logging.INFO, "mtl_jax")
    tree = {averaged: {"module": state(2)}, plain: state(3), "student": state(1)}
    assert choose(tree) == state(3)
    assert caplog.messages == [
        f"x.pth: reads the entry {plain}; others with tensors are student, {averaged}/module",
    ]
    for name, size in ((averaged, 2), (f"{averaged}/module", 2), (plain, 3), ("student", 1)):
        assert choose(tree, name) == state(size)


def test_several_models_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"several models: model, state_dict\. Name one entry: .*pretrained_entry=NAME"
    ):
        choose({"model": state(2), "state_dict": state(3)})
    with pytest.raises(ValueError, match=r"several models: ema, teacher\. Name one"):
        choose({"ema": state(2), "teacher": state(3)})
    same = state()
    assert choose({"model": same, "state_dict": same}) == same
    with pytest.raises(ValueError, match=r"more than named arrays: generator, critic\. Name one"):
        choose({"generator": state(), "critic": state()})
    with pytest.raises(ValueError, match=r"no entry 'none'; the entries with tensors are model, a/ema"):
        choose({"model": state(), "a": {"ema": state()}}, "none")


def test_a_tensor_beside_the_weights_is_not_the_weights():
    with pytest.raises(ValueError, match=r"more than named arrays: net\. Name one"):
        choose({"loss": state()["layer.0"], "net": state(3)})
    assert choose({"loss": state()["layer.0"], "model": state(3)}) == state(3)


def test_what_is_no_tensor_is_left_out_aloud(caplog):
    caplog.set_level(logging.INFO, "mtl_jax")
    assert choose(state(2) | {"epoch": 3, "args": Unknown("argparse.Namespace")}) == state(2)
    assert caplog.messages == [
        "x.pth, the whole content: leaves out what is no tensor: 'epoch': 3, 'args': argparse.Namespace"
    ]


@pytest.mark.parametrize(
    "name",
    ["torch._utils._rebuild_sparse_tensor", "tensor of torch.QInt8Storage", "numpy.core.multiarray._reconstruct"],
)
def test_a_placeholder_among_the_weights_is_refused(name):
    with pytest.raises(ValueError, match=rf"x\.pth, model: .*not read: 'layer\.9': {name}\. Save .*dense tensors"):
        choose({"model": state(2) | {"layer.9": Unknown(name)}})


def test_contents_without_weights():
    for tree, message in [
        ({}, "holds nothing instead of named arrays"),
        ({"model": Unknown("models.Net")}, r"holds 'model': models\.Net instead of named arrays"),
        ([1], "holds list of 1 instead"),
        (state()["layer.0"], "holds a single tensor instead"),
    ]:
        with pytest.raises(ValueError, match=message):
            choose(tree)


def test_cycles_and_shared_entries():
    tree = {"epoch": 1}
    tree["model"] = tree
    with pytest.raises(ValueError, match="instead of named arrays"):
        choose(tree)
    tree = state()
    for _ in range(200):
        tree = {"model": tree, "state_dict": tree, "module": tree}
    with pytest.raises(ValueError, match="instead of named arrays"):  # deeper than entries are searched for
        choose(tree)
