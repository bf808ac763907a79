"""docs/configuration.md, which a script writes from the docstrings and tables of the package."""

import dataclasses
import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from mtl_jax import config_overrides
from mtl_jax.commands import list_names

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "configuration.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("configuration_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_page_is_current():
    # In a process of its own: tests in this one may have added names.
    process = subprocess.run([sys.executable, SCRIPT, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_every_field_has_a_line_with_its_meaning(script):
    lines = script.page().splitlines()
    for name, *_ in config_overrides.fields():
        (line,) = (line for line in lines if line.startswith(f"| `{name}` |"))
        assert len(line.split(" | ")[3].strip(" |")) > 10, line


def test_options_and_parameters_are_found(script):
    @dataclasses.dataclass(frozen=True)
    class Options:
        """Options.

        Attributes:
            width: Number of channels.
        """

        width: int = 8

    @dataclasses.dataclass(frozen=True)
    class Entry:
        options: type
        make: object = None

    def method(*, c: float = 0.4, kind: str | None = None, code: partial | None = None):
        """Returns a method.

        Args:
            c: Radius of a ball,
                in metres.
        """

    def loss(logits: int, smoothing: float = 0.0, *, counts: partial | None = None):
        pass

    def called_by_code(*, c: float = 0.4, rngs: int):
        pass

    assert [(row.name, row.default, row.kind, row.meaning) for row in script.parameters(Entry(Options))] == [
        ("width", "`8`", "a whole number", "Number of channels.")
    ]
    assert [(row.name, row.kind, row.meaning) for row in script.parameters(Entry(int, method))] == [
        ("c", "a number", "Radius of a ball, in metres."),
        ("kind", "a word or none", ""),
    ]
    assert [row.name for row in script.parameters(loss)] == ["smoothing"]
    assert list(script.parameters(called_by_code)) == []
    assert list(script.parameters(lambda x, *, momentum=0.9: x)) == []


def test_an_old_page_is_refused(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["configuration.py", "--check"])
    with pytest.raises(SystemExit, match=r"page\.md is not current; write it anew: python docs/configuration\.py"):
        script.main()
    monkeypatch.setattr(sys, "argv", ["configuration.py"])
    script.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == script.page()


def test_abbreviations_do_not_end_a_sentence():
    text = "Returns a method (Liu et al., arXiv 2110.14048, sec. 3.1 and alg. 1). It is slow."
    assert list_names._first_sentence("Muon (K. Jordan). It orthogonalises.") == "Muon (K. Jordan)"
    assert list_names._first_sentence(text) == "A method (Liu et al., arXiv 2110.14048, sec. 3.1 and alg. 1)"
