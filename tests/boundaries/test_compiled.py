import logging
import os
import runpy

import numpy as np
import pytest
from numba.core.caching import FunctionCache

from mtl_jax.boundaries import compiled as module
from mtl_jax.boundaries import counting, warm_up
from mtl_jax.boundaries.compiled import compiled, is_ready
from mtl_jax.boundaries.protocols import BoundaryProtocol
from mtl_jax.codecs import pictures


@pytest.fixture(autouse=True)
def _functions(monkeypatch):
    monkeypatch.setattr(module, "_FUNCTIONS", module._FUNCTIONS.copy())


def test_an_installation_that_cannot_be_written_to(monkeypatch):
    monkeypatch.setattr(FunctionCache._impl_class, "_locator_classes", [])
    function = compiled(lambda x: x + 1)
    assert not is_ready([function])
    assert function(2) == 3
    assert is_ready([function])


def test_machine_code_on_the_disk_counts_until_its_source_changes(tmp_path):
    path = tmp_path / "loops.py"
    path.write_text("from mtl_jax.boundaries.compiled import compiled\n@compiled\ndef twice(x):\n    return 2 * x\n")

    def another_process():
        return runpy.run_path(str(path), run_name="loops")["twice"]

    function = another_process()
    assert not is_ready([function])
    assert function(2) == 4
    assert is_ready([another_process()])
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))  # as after an update of the package
    assert not is_ready([another_process()])


def test_the_first_matching_on_a_machine_says_that_it_compiles(monkeypatch, caplog):
    line = np.eye(16, dtype=np.uint8)[..., None]
    image = counting.Image("a", pictures.encode_png(255 * line), pictures.encode_png(line), kind="boundaries")
    said = ["compiling the matching of boundaries, once on this machine ...", "the matching of boundaries is compiled"]
    protocol = BoundaryProtocol("test", ("0.5",), suppress=False)
    for ready, expected in ((False, said), (True, [])):
        monkeypatch.setattr(warm_up, "is_ready", lambda ready=ready: ready)
        caplog.clear()
        with caplog.at_level(logging.INFO, warm_up.__name__):
            counting.count_images([image], protocol, num_workers=0)
        assert [message.partition(" (")[0] for message in caplog.messages] == expected
