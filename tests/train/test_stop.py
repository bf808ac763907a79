"""Signals that ask a run to stop: they are answered at once, whatever the main thread does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mtl_jax.train.stop import StopRequests
from tests.processes import ROOT

# The main thread is in C and handles no signal, as during a long compilation.
BUSY = """
import hashlib, signal
from mtl_jax.train.stop import StopRequests
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this process
with StopRequests() as stop:
    print("started", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.fixture
def busy():
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_at_once(busy, number):
    busy.send_signal(number)
    assert busy.stderr.readline() == "\n"
    assert busy.stderr.readline() == "finishing the step and saving it; Ctrl-C ends the run at once\n"
    assert busy.poll() is None
    busy.send_signal(signal.SIGINT)
    assert busy.stderr.readline() == "\n"
    assert busy.stderr.readline() == "ending at once; the newest checkpoint stays as it is\n"
    assert busy.wait(30) == 128 + signal.SIGINT


def test_what_is_ignored_stays_ignored():
    """Scripts start background jobs so that a Ctrl-C for the script does not reach them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.reached(1)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_main_thread_that_handles_signals_ends_by_itself():
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    with StopRequests() as stop, pytest.raises(KeyboardInterrupt):
        twice()
    assert stop.reached(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
