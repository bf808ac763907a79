"""The devices that JAX computes on: what they are called, and advice where a GPU is expected and missing."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax

from mtl_jax.runtime import messages, workers

_INSTALL = messages.install("cuda")
_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")  # packages that let JAX use NVIDIA cards
_DRIVER = Path("/proc/driver/nvidia/gpus")  # has a folder for each card that the driver runs
_CUDA = {"cuda", "gpu"}  # names of JAX for NVIDIA cards
_HIDDEN = {"", "-1", "none", "void"}  # values of the variables by which users hide their cards
_HIDING = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_SECONDS = 10.0  # that nvidia-smi may take


class MissingDeviceError(ValueError):
    """JAX_PLATFORMS names a kind of device that JAX does not have here; the message says what to do."""


@contextlib.contextmanager
def explain_missing() -> Iterator[None]:
    """Explains the error of JAX inside of the `with` block if `JAX_PLATFORMS` names devices that JAX does not have.

    JAX looks for its devices when they are first needed. Its own error is an empty AssertionError, or a RuntimeError
    that lists internal names.

    Raises:
        MissingDeviceError: JAX has none of the devices. Other errors are raised as they are.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        if _devices_are_missing():
            raise MissingDeviceError(_advice(_asked())) from error
        raise


def _asked() -> str:
    """Returns the platforms that JAX is told to use, with commas between them; empty where it may choose."""
    return jax.config.values["jax_platforms"] or ""


def _devices_are_missing() -> bool:
    if not _asked():
        return False
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # which of them depends on the platform
        return True
    return False


def _advice(asked: str) -> str:
    """Returns what to do where JAX has none of the platforms that are asked for, for example "cuda"."""
    fallback = "set JAX_PLATFORMS=cpu to compute on the CPU, or unset it to take what there is"
    if not _CUDA & set(asked.split(",")):
        return f"JAX_PLATFORMS is {asked!r}, and JAX has no such devices here; {fallback}"
    reasons = []
    if not _has_cuda():
        reasons.append(f"this JAX is without CUDA (install it: {_INSTALL})")
    if nvidia_card() is None:
        reasons.append("no NVIDIA card is visible (nvidia-smi must list one)")
    because = " and ".join(reasons) or "the card does not start (is the driver older than this JAX needs?)"
    return f"JAX_PLATFORMS is {asked!r}, but {because}; {fallback}"


def nvidia_card() -> str | None:
    """Returns the name of the first NVIDIA card that programs can see, or None where there is none.

    The driver is asked through nvidia-smi or /proc, so the answer does not depend on the JAX that is installed.
    """
    if any(os.environ.get(name, "all").strip().lower() in _HIDDEN for name in _HIDING):
        return None
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
            return next((line.strip() for line in listed.splitlines() if line.strip()), None)
        return None  # the driver is there and does not work
    for path in sorted(_DRIVER.glob("*/information")):
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(":")
                if name.strip() == "Model":
                    return value.strip()
    return None


def _has_cuda() -> bool:
    return any(importlib.util.find_spec(name) is not None for name in _PLUGINS)


def describe() -> str:
    """Returns the devices of a run as text, for example "8 x NVIDIA H100 80GB HBM3 in 2 processes"."""
    kinds = Counter(device.device_kind for device in jax.devices())
    if jax.default_backend() == "cpu":
        shared = f", {sum(kinds.values())} devices" if sum(kinds.values()) > 1 else ""
        text = f"CPU with {workers.cpu_count()} cores{shared}"
    else:
        text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"{text} in {jax.process_count()} processes" if jax.process_count() > 1 else text


def advice_on_cpu() -> str | None:
    """Returns a line of advice if JAX computes on the CPU although an NVIDIA card is visible, otherwise None.

    Where `JAX_PLATFORMS` names the CPU, the CPU is what the user wants.
    """
    if jax.default_backend() != "cpu" or "cpu" in _asked().split(","):
        return None
    if (card := nvidia_card()) is None:
        return None
    remedy = "JAX_PLATFORMS=cuda in front of the command shows why JAX does not use it" if _has_cuda() else _INSTALL
    return f"this machine has an NVIDIA card ({card}), but JAX computes on the CPU: {remedy}"
