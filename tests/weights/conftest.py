import pytest


@pytest.fixture(scope="session")
def torch():
    """Only to write files: the package itself reads them without torch."""
    return pytest.importorskip("torch", reason="writing torch files needs torch", exc_type=ModuleNotFoundError)
