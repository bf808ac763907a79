from numba.core.caching import FunctionCache

from mtl_jax.boundaries.compiled import compiled


def test_an_installation_that_cannot_be_written_to(monkeypatch):
    monkeypatch.setattr(FunctionCache._impl_class, "_locator_classes", [])
    assert compiled(lambda x: x + 1)(2) == 3
