"""Loggers: where the losses, scores and images of a run go.

`log.jsonl` is always written. The configuration names the others, with their options:
`--train.loggers=tensorboard,csv,wandb:project=rooms,group=a`. A logger outside of the package is added by `register`.
"""

from mtl_jax.loggers import csv_files, mlflow_run, tensorboard, wandb_run
from mtl_jax.loggers.base import EVALUATION, TRAINING, LoggedImage, Logger, Outcome, RunStart
from mtl_jax.loggers.jsonl import LOG, LogLines, read, split
from mtl_jax.loggers.registry import LOGGERS, Choice, NoOptions, check_installed, parse, register
from mtl_jax.loggers.service import Service

__all__ = [
    "EVALUATION",
    "LOG",
    "LOGGERS",
    "TRAINING",
    "Choice",
    "LogLines",
    "LoggedImage",
    "Logger",
    "NoOptions",
    "Outcome",
    "RunStart",
    "Service",
    "check_installed",
    "csv_files",
    "mlflow_run",
    "parse",
    "read",
    "register",
    "split",
    "tensorboard",
    "wandb_run",
]
