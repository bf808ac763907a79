"""The examples of balancing run as they are, and what they train gets better."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

from mtl_jax import balancing

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("balancing_*.py"))


def run(monkeypatch, capsys, name, *arguments):
    """{task: (first loss, last loss)} as the example prints them."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    jax.clear_caches()  # jax takes the data class of an example for that of its previous run, whose fields are the same
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    lines = re.findall(r"^(\w+): (\S+) -> (\S+)$", capsys.readouterr().out, re.MULTILINE)
    return {task: (float(first), float(last)) for task, first, last in lines}


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall(monkeypatch, capsys, name):
    losses = run(monkeypatch, capsys, name)
    assert len(losses) == 2
    assert all(last < 0.5 * first for first, last in losses.values()), losses


def test_another_method(monkeypatch, capsys):
    """With parameters."""
    losses = run(monkeypatch, capsys, "balancing_plain_jax", "dwa:window=5")
    assert all(last < 0.9 * first for first, last in losses.values()), losses


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_observes(monkeypatch, capsys, name):
    """It is told the losses after each step."""
    told, make = [], balancing.BALANCERS["famo"]

    def famo_that_tells():
        method = make()
        return method._replace(observe=lambda state, *losses: told.append(losses) or method.observe(state, *losses))

    balancing.register(famo_that_tells)
    try:
        losses = run(monkeypatch, capsys, name, "famo_that_tells")
    finally:
        del balancing.BALANCERS["famo_that_tells"]
    assert told
    assert all(last < 0.9 * first for first, last in losses.values()), losses
