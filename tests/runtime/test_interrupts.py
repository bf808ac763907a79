"""Ctrl-C within a callback whose exceptions Python ignores ends the program nevertheless."""

import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT

# `swallow` is called where Python reports exceptions and goes on.
PROGRAM = """
import gc, signal, time, weakref
from mtl_jax.runtime import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this process
interrupts.keep()

class Held:
    pass

def swallow(*arguments):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)

{callback}
print("swallowed", flush=True)
time.sleep(30)
print("went on")
"""
CALLBACKS = {
    "garbage collector": "gc.callbacks.append(swallow); gc.collect()",
    "weak reference": "held = Held(); reference = weakref.ref(held, swallow); del held",
    "finaliser": "Held.__del__ = swallow; Held()",
}


@pytest.mark.parametrize("callback", CALLBACKS.values(), ids=CALLBACKS)
def test_an_interrupt_in_a_callback_ends_the_program(callback):
    program = [sys.executable, "-c", PROGRAM.format(callback=callback)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert ended.stdout == "swallowed\n"
    assert ended.returncode == -signal.SIGINT
    assert "Exception ignored" not in ended.stderr


def test_other_ignored_exceptions_are_reported_as_before():
    callback = "Held.__del__ = lambda self: 1 / 0; Held(); signal.raise_signal(signal.SIGINT)"
    program = [sys.executable, "-c", PROGRAM.format(callback=callback)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert "Exception ignored" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
