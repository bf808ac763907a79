"""docs/losses.md: every loss and argument stands there, and every example works."""

import re
from pathlib import Path

import pytest

from mtl_jax import losses, notation

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"--losses\.(\w+)=([^\s`]+)", PAGE)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_and_its_arguments_stand_there(name):
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"| `{name}` |" in line]
    short = losses.short_name(name)
    assert row.startswith(f"| `{short}` |" if short else "| |")
    known = notation.parameters(losses.LOSSES[name])
    for argument, (_, default) in known.items():
        if argument != "counts":
            text = f"{default:g}" if isinstance(default, float) else notation.written(default)
            assert f"`{argument}={text}`" in row


@pytest.mark.parametrize("word", sorted({word for words in losses.MEASURED.values() for word in words}))
def test_every_measured_value_stands_there(word):
    assert re.search(rf"^\| `\w+={word}`|or `{word}` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("task", "text"), EXAMPLES)
def test_examples(task, text):
    losses.check(text, task, 40)


def test_there_are_examples():
    assert len(EXAMPLES) >= 3
