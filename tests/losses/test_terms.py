"""The notation of losses."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import losses, tasks
from mtl_jax.labels import ClassIds, Foreground, RealValues, UnitVectors
from mtl_jax.losses import Frequencies, TaskLoss, terms
from tests.losses.examples import pair


def value(text, task, prediction, label):
    return sum(TaskLoss(text, task).terms(prediction, label).values())


def test_terms_have_weights_and_arguments():
    logits, label = pair("softmax_cross_entropy", 2)
    found = TaskLoss("ce:smoothing=0.1,class_weights=1/2/5e-1 + 0.5*dice+1e+1*focal:gamma=3", "semseg")
    expected = {
        "ce": losses.softmax_cross_entropy(logits, label, 0.1, (1, 2, 0.5)),
        "dice": 0.5 * losses.softmax_dice(logits, label),
        "focal": 10 * losses.softmax_focal(logits, label, 3.0),
    }
    values = found.terms(logits, label)
    assert list(values) == list(expected)
    for name in expected:
        np.testing.assert_allclose(values[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("short", "task", "name"),
    [
        ("ce", "semseg", "softmax_cross_entropy"),
        ("l1", "depth", "depth_l1"),
        ("l1", "normals", "normals_l1"),
        ("dice", "edge", "sigmoid_dice"),
        ("dice", "human_parts", "softmax_dice"),
        ("bce", "sal", "balanced_cross_entropy"),
        ("edge_cross_entropy", "edge", "edge_cross_entropy"),
    ],
)
def test_short_names_stand_for_the_loss_that_fits(short, task, name):
    prediction, label = pair(name, 2)
    np.testing.assert_array_equal(value(short, task, prediction, label), losses.LOSSES[name](prediction, label))
    np.testing.assert_array_equal(value(name, task, prediction, label), losses.LOSSES[name](prediction, label))


def test_the_losses_of_each_kind():
    assert set(losses.fitting(ClassIds())) >= {"ce", "focal", "dice", "ohem", "lovasz"}
    assert set(losses.fitting(Foreground())) >= {"bce", "dice", "edge_cross_entropy"}
    assert set(losses.fitting(RealValues())) >= {"l1", "l2", "berhu", "silog", "gradient"}
    assert set(losses.fitting(UnitVectors())) >= {"l1", "l2", "cosine", "angular"}


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("ce+dise", "semseg", "unknown loss 'dise'; the losses that fit this task are ce, .*Did you mean dice"),
        (
            "dice",
            "depth",
            "'dice' is for labels of the kind ClassIds or Foreground, those of this task are RealValues; ",
        ),
        ("normals_l1", "depth", "of the kind UnitVectors, .* the losses that fit are l1, l2, berhu, silog"),
        (
            "focal:gama=2",
            "semseg",
            "'gama=2' is no parameter=value of the loss focal; it takes gamma=2.0, class_weights=none. .*mean gamma?",
        ),
        ("focal:gamma=x", "semseg", "parameter gamma of the loss focal is 'x'; it must be a number"),
        ("focal:gamma=-1", "semseg", "argument gamma of the loss focal is -1.0; it must be at least 0"),
        ("ce:smoothing=1.5", "semseg", "smoothing of the loss ce is 1.5; it must be from 0 to 1"),
        ("ce:class_weights=1/-2/3", "semseg", r"class_weights of the loss ce is \(1.0, -2.0, 3.0\); it must be at le"),
        ("ce:class_weights=1/2", "semseg", "number of class_weights of ce is 2; semseg has 3 classes"),
        ("ce:class_weights=mesured", "semseg", 'numbers joined by "/", measured or median_fr.*Did you mean measured'),
        ("dice:class_weights=measured", "semseg", "'class_weights=measured' is no parameter=value of the loss dice"),
        ("bce:positive_weight=enet", "edge", "positive_weight is 'enet'; it may be numbers .*, measured, or the path"),
        ("ce:counts=none", "semseg", "'counts=none' is no parameter=value of the loss ce"),
        ("l1:x=1", "depth", "it takes no parameters"),
        ("ce++dice", "semseg", r"'ce\+\+dice' has a term without a name"),
        ("", "semseg", "has a term without a name"),
        ("ce+2*ce", "semseg", "has the term ce twice"),
        ("ce:", "semseg", "ends with a colon"),
        ("x*ce", "semseg", "the weight of ce is 'x'; give a number of at least 0"),
        ("-1*ce", "semseg", "the weight of ce is '-1'"),
        ("inf*ce", "semseg", "the weight of ce is 'inf'"),
    ],
)
def test_errors(text, task, message):
    with pytest.raises(ValueError, match=message):
        losses.check(text, task, 3)


@pytest.mark.parametrize("text", ["ce", "ce:class_weights=measured", "ce:class_weights=weights/a.txt+focal", "0*ce"])
def test_what_is_right(text):
    losses.check(text, "semseg", 3)


def test_words_become_numbers(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("1, 2\n0.5\n")
    frequencies = Frequencies((60, 30, 10), (4, 3, 2), (100, 75, 50))
    text = f"2*ce:class_weights=inverse_frequency,smoothing=0.1+focal:class_weights={path}"
    assert losses.needs_measuring(text)
    found = losses.with_numbers(text, frequencies)
    assert found == "2*ce:class_weights=0.555556/1.11111/3.33333,smoothing=0.1+focal:class_weights=1.0/2.0/0.5"
    assert not losses.needs_measuring(found)
    assert losses.with_numbers(found) == found
    losses.check(found, "semseg", 3)
    with pytest.raises(ValueError, match="class_weights of ce is 'inverse_frequency', which is measured or read when"):
        TaskLoss(text, "semseg")
    with pytest.raises(ValueError, match="class_weights=inverse_frequency is measured on the training split"):
        losses.with_numbers(text)


def test_files_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"class_weights names the file .*none\.txt, which does not exist"):
        losses.with_numbers(f"ce:class_weights={tmp_path}/none.txt")
    (tmp_path / "words.txt").write_text("one two")
    with pytest.raises(ValueError, match=r"words\.txt, which class_weights names, must have numbers and nothing else"):
        losses.with_numbers(f"ce:class_weights={tmp_path}/words.txt")


@pytest.fixture
def huber():
    @losses.register("huber_of_an_outsider", kinds=(RealValues,), bounds={"delta": (0, 10)})
    def huber(prediction, label, delta: float = 1.0, *, counts=None):
        errors = jnp.minimum(losses.absolute(prediction - label), delta)
        return losses.masked_mean(errors, label != tasks.IGNORE, counts)

    yield huber
    del losses.LOSSES["huber_of_an_outsider"]


def test_a_loss_of_an_outsider_takes_arguments(huber):
    prediction, label = pair("depth_l1", 2)
    found = value("huber_of_an_outsider:delta=0.5+l1", "depth", prediction, label)
    np.testing.assert_allclose(found, huber(prediction, label, 0.5) + losses.depth_l1(prediction, label), rtol=1e-6)
    with pytest.raises(ValueError, match=r"delta of the loss huber_of_an_outsider is 11\.0; it must be from 0 to 10"):
        losses.check("huber_of_an_outsider:delta=11", "depth", 1)
    with pytest.raises(ValueError, match="'huber_of_an_outsider' is for labels of the kind RealValues"):
        losses.check("huber_of_an_outsider", "edge", 1)


def test_names_and_short_names_do_not_collide(huber):
    for name, options, message in (
        ("dice", {}, "'dice' is the short name of softmax_dice and sigmoid_dice"),
        ("mine", {"short": "depth_l1"}, "there is a loss 'depth_l1' already; give mine another short name"),
        ("huber_of_an_outsider", {}, "there is a loss 'huber_of_an_outsider' already"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            losses.register(name, **options)(lambda prediction, label, *, counts=None: 0)
    assert "mine" not in losses.LOSSES


def test_an_undeclared_loss_fits_everything():
    losses.register("anything")(lambda prediction, label, *, counts=None: prediction.sum())
    try:
        for task in tasks.TASKS:
            losses.check("anything", task, 1)
    finally:
        del losses.LOSSES["anything"]


def test_terms_are_written_as_they_are_read():
    text = "2*ce:class_weights=1/2,smoothing=0.1+focal+0.5*dice"
    assert "+".join(map(str, terms.split(text))) == text
