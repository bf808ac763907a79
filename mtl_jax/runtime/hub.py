"""The Hugging Face Hub, which the extra `hub` reads."""

from typing import Any

from mtl_jax.runtime import messages


def client(what: str) -> Any:
    """Returns the package huggingface_hub.

    Args:
        what: What is to be read, for the message.

    Raises:
        ValueError: The extra `hub` is not installed.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{what} is on the Hugging Face Hub, which needs the extra "hub": {messages.install("hub")}; or '
            "download its files by other means and give their place"
        ) from error
    return huggingface_hub
