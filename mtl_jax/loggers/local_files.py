"""Files that stay open while a run logs."""

import io

from mtl_jax.runtime import messages


def close(file: io.FileIO, what: str) -> None:
    """Closes a file.

    Args:
        file: The file.
        what: What it holds, for the error message.

    Raises:
        OSError: What was written has not reached the file; the message names it.
    """
    with messages.writing(what, str(file.name)):
        try:
            file.close()
        except OSError as error:  # some file systems tell only now that a write has failed
            raise OSError(error.errno, error.strerror, str(file.name)) from error
