"""MLflow (https://mlflow.org)."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_jax.loggers.base import LoggedImage, Outcome, RunStart
from mtl_jax.loggers.registry import register
from mtl_jax.loggers.service import Service

_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_AT_ONCE = 100  # parameters that MLflow takes in one request
_LONGEST = 5000  # characters of a parameter or a tag that MLflow takes


@dataclass(frozen=True)
class MlflowOptions:
    """Options of the logger "mlflow".

    Attributes:
        experiment: Experiment; empty = the environment variable MLFLOW_EXPERIMENT_NAME, or else mtl_jax.
        name: Name of the run; empty = the name of the work directory.
        tracking_uri: Address of the tracking server, or sqlite:///FILE for a local file; empty = the environment
            variable MLFLOW_TRACKING_URI, or else MLflow's default, sqlite:///mlflow.db in the current folder.
    """

    experiment: str = ""
    name: str = ""
    tracking_uri: str = ""


@register("mlflow", options=MlflowOptions, package="mlflow", extra="mlflow")
class Mlflow(Service):
    """A run at an MLflow tracking server or in a local file, with curves, images and configuration."""

    def __init__(self, start: RunStart, options: MlflowOptions):
        import mlflow  # an extra

        experiment = options.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "mtl_jax")
        uri = options.tracking_uri or mlflow.get_tracking_uri()
        super().__init__(start, "mlflow", {"experiment": experiment, "tracking_uri": uri})
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(experiment)
        experiment_id = known.experiment_id if known else self._client.create_experiment(experiment)
        self._run_id = self.continued()
        name = options.name or start.workdir.resolve().name
        if self._run_id:
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            self._run_id = self._client.create_run(experiment_id, run_name=name).info.run_id
        self._place = f"run {name} of the experiment {experiment} at {uri}"
        self._log_parameters(start.config)
        tags = [self._entities.RunTag(title, text[:_LONGEST]) for title, text in start.facts.items()]
        self._client.log_batch(self._run_id, tags=tags)
        self.begin(self._run_id)

    def send(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Sends the values as KIND/NAME."""
        now = int(1000 * time.time())  # milliseconds
        metrics = [self._entities.Metric(f"{kind}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def send_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Sends the pictures under the keys NAME."""
        for image in images:
            self._client.log_image(self._run_id, image.picture, key=image.name, step=step)

    def place(self) -> str:
        return self._place

    def close(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run_id, _STATUS[outcome])

    def _log_parameters(self, config: Mapping[str, object]) -> None:
        """Stores the configuration. MLflow refuses another value of a parameter, so changed fields become tags."""
        texts = {name: str(value)[:_LONGEST] for name, value in config.items()}
        stored = self._client.get_run(self._run_id).data
        new = [self._entities.Param(name, text) for name, text in texts.items() if name not in stored.params]
        for first in range(0, len(new), _AT_ONCE):
            self._client.log_batch(self._run_id, params=new[first : first + _AT_ONCE])
        changed = {name: text for name, text in texts.items() if stored.params.get(name, text) != text}
        self._client.log_batch(self._run_id, tags=[self._entities.RunTag(f"now {n}", t) for n, t in changed.items()])
