"""Saved models on the Hugging Face Hub."""

import re
from pathlib import Path

from mtl_jax.inference.model_folder import FILES
from mtl_jax.runtime import hub

SCHEME = "hf://"
_ADDRESS = re.compile(rf"{SCHEME}(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def is_address(place: str) -> bool:
    """Returns True if a place is meant as an address on the hub."""
    return place.startswith(SCHEME)


def download(address: str) -> Path:
    """Downloads a saved model once, and returns its folder in the hub's cache.

    Args:
        address: "hf://OWNER/NAME", or "hf://OWNER/NAME@REVISION" for a branch, a tag or a commit.

    Raises:
        ValueError: The address has another form, or the extra `hub` is not installed.
        OSError: The download failed.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ValueError(f"the address is {address!r}; give {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME@REVISION")
    client = hub.client(address)
    return Path(client.snapshot_download(parts["name"], revision=parts["revision"], allow_patterns=list(FILES)))
