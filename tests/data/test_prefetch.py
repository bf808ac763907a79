import threading

import pytest

from mtl_jax.data.prefetch import ahead


def counter(stop):
    calls = []

    def produce():
        if len(calls) == stop:
            raise StopIteration
        calls.append(threading.current_thread().name)
        return len(calls)

    return produce, calls


def test_everything_in_order():
    produce, calls = counter(7)
    assert list(ahead(produce, 3)) == [1, 2, 3, 4, 5, 6, 7]
    assert len(set(calls)) == 1
    assert calls[0] != threading.current_thread().name


def test_works_ahead_but_not_further():
    produce, calls = counter(100)
    items = ahead(produce, 3)
    assert next(items) == 1
    assert next(items) == 2
    items.close()
    assert len(calls) <= 2 + 3 - 1  # one waits less than `depth` while an item is out


def test_errors_come_with_their_item():
    made = iter([1, 2])

    def produce():
        try:
            return next(made)
        except StopIteration:
            raise ValueError("broken record") from None

    items = ahead(produce, 4)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="broken record"):
        next(items)


def test_a_long_wait_is_told(caplog):
    release = threading.Event()

    def produce():
        release.wait(10)
        raise StopIteration

    items = ahead(produce, what="batch of own, which 2 worker processes read", patience=0.02)
    threading.Timer(0.1, release.set).start()
    assert list(items) == []
    assert "has waited 0.02 seconds for the next batch of own, which 2 worker processes read" in caplog.text
    assert "has waited 0.04 seconds" in caplog.text
    assert caplog.text.count("has waited") <= 4
