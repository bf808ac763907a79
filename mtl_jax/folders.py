"""The two kinds of folders with weights: work directories of runs, and saved models."""

from pathlib import Path

CHECKPOINTS = "checkpoints"  # folder in a work directory
WEIGHTS = "model.safetensors"  # file in a saved model


def holds_checkpoint(folder: str | Path) -> bool:
    """Returns True if a folder is a work directory with a finished checkpoint."""
    # Unfinished ones have a longer name.
    return any(path.name.isdecimal() for path in (Path(folder) / CHECKPOINTS).glob("*"))


def is_saved_model(folder: str | Path) -> bool:
    """Returns True if a folder has the weights of a saved model; a folder with checkpoints is a work directory."""
    return (Path(folder) / WEIGHTS).is_file() and not holds_checkpoint(folder)


def check_is_run(folder: str | Path) -> None:
    """Checks that a folder that is used as a work directory is no saved model.

    Raises:
        FileNotFoundError: It is one.
    """
    if is_saved_model(folder):
        raise FileNotFoundError(
            f"{folder} is a saved model ({WEIGHTS}), which has no checkpoints; give the work directory of a run"
        )
