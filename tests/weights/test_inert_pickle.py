import io
import pickle
import sys
import tracemalloc
from collections import OrderedDict, defaultdict

import pytest

from mtl_jax.weights import inert_pickle
from mtl_jax.weights.inert_pickle import Function, Unknown


def load(data, known=None):
    return inert_pickle.load(io.BytesIO(data), known or {}, lambda pid: ("persistent", pid))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values(protocol):
    shared = ["text", "ü", b"" if protocol < 3 else b"bytes \xff"]
    value = {
        "numbers": [0, -1, 255, 2**16, -(2**40), 2**3000, 0.5, float("inf"), True, False],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (None,) * 4),
        "shared": (shared, shared),
        "nested": {"a": {}, "b": [[]]},
        "long": list(range(3000)),
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(list, a=[1]),
    }
    loaded = load(pickle.dumps(value, protocol))
    if protocol < 3:  # these protocols have no bytes: they name a class, bytes, instead
        shared[2] = loaded["shared"][0][2]
        assert isinstance(shared[2], Unknown)
    assert loaded == value
    assert loaded["shared"][0] is loaded["shared"][1]


def test_sets_are_lists():
    assert sorted(load(pickle.dumps({1, 2}, 4))) == load(pickle.dumps(frozenset({1, 2}), 4)) == [1, 2]


def test_pickles_of_python_2():
    pairs = b"\x80\x02ccollections\nOrderedDict\n](](U\x01bK\x01e](U\x02\xc3\xbcK\x02ee\x85R."
    assert list(load(pairs).items()) == [("b", 1), ("ü", 2)]
    assert load(b"U\x02\xff\xfe.") == "\xff\xfe"


def test_keys_other_than_text_are_placeholders():
    loaded = load(pickle.dumps({0: "a", (1, 2): "b", "x" * 2000: "c", "y": "d"}))
    assert loaded.pop("y") == "d"
    assert [(key.name[:4], value) for key, value in loaded.items()] == [("0", "a"), ("tupl", "b"), ("'xxx", "c")]


@pytest.mark.parametrize(
    "operations",
    [
        b"(K\1tR",
        b")\x81",
        b")}\x92",
        b")RK\1b",
        b")R}X\1\0\0\0aK\1sb",
        b")R(K\1K\2e",
        b")RK\1a",
        b")R(K\1K\2u",
        b")RK\1K\2s",
        b")R(K\1\x90",
        b"K\1b",
        b"(K\1K\2u",
        b"(K\1K\2e",
        b"0(cthis\ns\nK\1o",
        b"0(K\1ithis\ns\n",
        b"0\x8c\4this\x8c\1s\x93)R",
        b")R)R",
    ],
)
def test_operations_on_unknown_names_do_nothing(operations):
    sys.modules.pop("this", None)
    loaded = load(b"\x80\x02cthis\ns\n" + operations + b".")
    assert isinstance(loaded, Unknown)
    assert loaded.name == "this.s"
    assert "this" not in sys.modules


def test_known_names_and_persistent_ids():
    known = {"m.f": Function(lambda *arguments: ["called", *arguments]), "m.x": "a value"}
    assert load(b"cm\nf\n(K\1K\2tR.", known) == ["called", 1, 2]
    assert load(b"cm\nx\n.", known) == "a value"
    assert load(b"cm\nx\n)R.", known).name == "'a value'"
    assert load(b"K\1Q.") == ("persistent", 1)
    assert load(b"P12\n.") == ("persistent", "12")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"K\1",
        b".",
        b"0.",
        b"t.",
        b"e.",
        b"K\1\x86.",
        b"h\1.",
        b"p1\n.",
        b"K\1p-1\n.",
        b"K\1p9999999999\n.",
        b"\xff.",
        b"K\1K\2a.",
        b"K\1K\2K\3s.",
        b"}(K\1u.",
        b"K\1K\2\x93.",
        b"X\xff\xff\xff\xffshort.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fshort.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fK\1",
        b"ccollections\nOrderedDict\n](K\1e\x85R.",
        b"K\1b.",
        b"2.",
        b"Ix\n.",
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises((ValueError, LookupError, TypeError, OverflowError)):
        load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(100)) + b".",
        b")" + b"2\x86" * 1000 + b".",
        b"})" + b"2\x86" * 1000 + b"K\1s.",
        b"})" + b"\x85" * 100_000 + b"K\1s.",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"(" * 100_000 + b"K\1" + b"t" * 100_000 + b".",
        b"]q\0h\0a.",
        b"K\1r\xff\xff\x1f\0.",
    ],
    ids=["lists", "tuples", "a key", "a deep key", "deep lists", "deep tuples", "a cycle", "the memo"],
)
def test_nested_values_take_little_memory(data):
    tracemalloc.start()
    try:
        load(data)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_the_number_of_operations_is_limited(monkeypatch):
    monkeypatch.setattr(inert_pickle, "_MAX_OPERATIONS", 100)
    load(b"]" + b"K\1a" * 49 + b".")
    with pytest.raises(ValueError, match="more than 100 operations"):
        load(b"]" + b"K\1a" * 50 + b".")
    # A dictionary of pairs counts as many operations as there are pairs.
    pairs = b"ccollections\nOrderedDict\n](" + b"](K\1K\2e" * 10 + b"e\x85"
    load(pairs + b"R.")
    with pytest.raises(ValueError, match="more than 100 operations"):
        load(pairs + b"p1\n" + b"0ccollections\nOrderedDict\ng1\nR" * 10 + b".")


def test_values_are_described_in_few_words():
    deep = []
    for _ in range(100):
        deep = [deep, deep]
    for value, text in [
        (deep, "list of 2"),
        ("x" * 1000, repr("x" * 80)),
        (2**70, "int"),
        (12, "12"),
        (True, "bool"),
        (Unknown("a.b"), "a.b"),
        ({}, "dict of 0"),
    ]:
        assert inert_pickle.describe(value) == text
