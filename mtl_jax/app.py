"""A small app in the browser: drop a photo, see every task. Only this module needs gradio."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mtl_jax.drawing import panels
from mtl_jax.inference import model
from mtl_jax.labels.keys import Style
from mtl_jax.runtime import messages

# "overlay" is the choice of a first look; real values and vectors fill the picture in both.
_STYLES: tuple[tuple[str, Style], ...] = (("over the photo", "overlay"), ("colours alone", "map"))
_FONT = ("system-ui", "sans-serif")  # the themes of gradio would load fonts from the network
_DELETED_AFTER = 3600  # seconds after which uploads and pictures are deleted from the disk, looked for as often
_LARGEST_UPLOAD = "50mb"
_BUTTONS = ["download", "fullscreen"]  # of the panel; gradio's third one would send it to a public site


class Predictor:
    """A trained model, for one photo at a time.

    Args:
        place: The work directory of a run, or what else `mtl_jax.load` loads.
        step: Checkpoint of a work directory: "best", "latest" or the number of a step.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.

    Raises:
        FileNotFoundError, DamagedError, ValueError: See `mtl_jax.load`.
    """

    def __init__(self, place: str | Path, step: str, weights: str = ""):
        self._model = model.load(place, step, weights)

    @property
    def title(self) -> str:
        """The model and its tasks, for people."""
        described = self._model.experiment.config.model
        tasks = ", ".join(self._model.tasks)
        return messages.printable(f"{described.name} ({described.backbone}) from {self._model.origin}: {tasks}")

    def panel(self, image: np.ndarray, style: Style) -> np.ndarray:
        """Predicts an image, and draws it with every task and what the colours mean, RGB uint8 `[H', W', 3]`."""
        maps = self._model(image)
        return panels.panel(
            image,
            {task: each.prediction for task, each in maps.items()},
            names=self._model.class_names,
            conventions=self._model.experiment.conventions,
            style=style,
            caption="photo",
        )


def build(predictor: Predictor) -> Any:
    """Returns the app, a `gradio.Blocks`, which `launch` shows.

    Raises:
        ValueError: gradio is not installed.
    """
    gradio = _gradio()
    with gradio.Blocks(title="mtl_jax", analytics_enabled=False, delete_cache=(_DELETED_AFTER, _DELETED_AFTER)) as app:
        gradio.Markdown("# Drop a photo, see every task")
        gradio.Markdown(messages.markdown_cell(predictor.title))
        with gradio.Row():
            with gradio.Column(scale=1):
                photo = gradio.Image(label="photo", type="numpy", image_mode="RGB", sources=["upload", "clipboard"])
                style = gradio.Radio(list(_STYLES), value=_STYLES[0][1], label="classes, saliency and edges")
            with gradio.Column(scale=3):
                shown = gradio.Image(show_label=False, format="png", interactive=False, buttons=_BUTTONS)

        def predict(image: np.ndarray | None, chosen: Style) -> np.ndarray | None:
            return None if image is None else predictor.panel(image, chosen)

        gradio.on([photo.change, style.change], predict, [photo, style], shown, api_name="predict")
    return app


def launch(place: str | Path, step: str, weights: str = "", *, host: str, port: int) -> None:
    """Serves the app until the program is interrupted.

    gradio writes uploads and pictures to its folder of temporary files. They are deleted after one to two hours.

    Args:
        place: The work directory of a run, or what else `mtl_jax.load` loads.
        step: Checkpoint of a work directory: "best", "latest" or the number of a step.
        weights: Weights of the checkpoint: "ema" or "trained"; empty = those that training evaluated.
        host: Address to listen at: "127.0.0.1" for this machine alone, "0.0.0.0" for all that reach it.
        port: Port to listen at.

    Raises:
        ValueError: gradio is not installed.
        OSError: The port is in use.
        FileNotFoundError, DamagedError: See `mtl_jax.load`.
    """
    gradio = _gradio()  # before the model is read, which takes longer
    theme = gradio.themes.Default(font=_FONT, font_mono=("monospace",))
    app = build(Predictor(place, step, weights))
    app.launch(server_name=host, server_port=port, share=False, theme=theme, max_file_size=_LARGEST_UPLOAD)


def _gradio() -> ModuleType:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the app needs gradio, and {error.name} is not installed; install the extra: {messages.install('app')}"
        ) from error
    return gradio
