"""Weights & Biases offline, and MLflow in a local file; both packages are extras."""

import itertools
import struct

import cv2
import numpy as np
import pytest

from mtl_jax import loggers
from mtl_jax.loggers import RunStart
from mtl_jax.train.stop import StoppedError
from mtl_jax.train.writer import Writer
from tests.train import runs

_BLOCK = 32768  # bytes of a block of wandb's files, which have the form of LevelDB's logs
CONFIG = {"optim.lr": 0.5, "data.tasks": ("depth",), "train.log_every": 20}
FACTS = {"software": "jax 1, flax 2", "task depth": "loss depth_l1"}


def image(level):
    picture = np.full((20, 30, 3), level, np.uint8)
    return loggers.LoggedImage("0_room", "room", picture, cv2.imencode(".jpg", picture)[1].tobytes())


def train(workdir, logger, first, last, config=CONFIG, error=None):
    """Logs steps like a run that continues from the step before the first one; each second step is evaluated."""
    fixed = {"optim.lr": config["optim.lr"]}
    with Writer(loggers.parse([logger]), RunStart(workdir, first - 1, config=config, fixed=fixed, facts=FACTS)) as log:
        for step in range(first, last + 1):
            log.write(step, "train", {"loss/total": 1.0 / step})
            if step % 2 == 0:
                log.write(step, "eval", {"depth/rmse": float(step)})
                log.write_images(step, [image(step)])
        places = log.places()
        if error is not None:
            raise error
    return places


def records(path):
    """The records in a file that wandb writes offline."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):  # it is being written
            return
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def of_kind(path, kind):
    """The records of a kind."""
    return [getattr(record, kind) for record in records(path) if record.WhichOneof("record_type") == kind]


def files_of_parts(workdir, number):
    """The files of the parts of a run, the oldest first. The last bytes of a file come some time after `finish`."""

    def found():
        return sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)

    runs.wait_for(lambda: [len(of_kind(path, "exit")) for path in found()] == [1] * number, "the end of all files")
    return found()


def rows(path):
    """[{name: value as JSON}] of the rows of the history, without what wandb adds."""
    items = [history.item for history in of_kind(path, "history")]
    named = [{item.key or ".".join(item.nested_key): item.value_json for item in row} for row in items]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in named]


# wandb and its service talk over sockets that the collector of garbage closes after `finish`.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    workdir = tmp_path / "my run"
    workdir.mkdir()
    named = "wandb:project=rooms,group=seeds,tags=a+b"
    with pytest.raises(StoppedError):
        train(workdir, named, 1, 3, error=StoppedError("stop"))
    places = train(workdir, named, 3, 4, CONFIG | {"train.log_every": 10})  # continues from step 2
    first, second = files_of_parts(workdir, 2)
    assert first.name == second.name  # one run for wandb
    assert places["wandb"].startswith(f"wandb sync '{second.parents[1]}'/offline-run-*-{second.stem[4:]} ")
    sent = [*rows(first), *rows(second)]
    images = [row for row in sent if "images/0_room.path" in row]
    assert [row["step"] for row in images] == ["2", "4"]
    numbers = [row for row in sent if row not in images]
    assert [(row["step"], row.get("train/loss/total"), row.get("eval/depth/rmse")) for row in numbers] == [
        ("1", "1", None),
        ("2", "0.5", None),
        ("2", None, "2"),
        ("3", str(1.0 / 3), None),
        ("4", "0.25", None),
        ("4", None, "4"),
    ]
    run = of_kind(first, "run")[0]
    assert (run.project, run.run_group, list(run.tags), run.display_name) == ("rooms", "seeds", ["a", "b"], "my run")
    config = {item.key: item.value_json for item in run.config.update}
    assert config["optim.lr"] == "0.5"
    assert "jax 1, flax 2" in config["run"]
    assert [of_kind(path, "exit")[0].exit_code for path in (first, second)] == [1, 0]
    assert of_kind(first, "preempting")
    train(workdir, named, 3, 3, CONFIG | {"optim.lr": 0.25})  # repeats a step with another rate
    *_, third = files_of_parts(workdir, 3)
    assert third.name != first.name
    assert [row["step"] for row in rows(third) if "train/loss/total" in row] == ["1", "2", "3"]


# SQLAlchemy's pool closes its connections when it is collected.
@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_local_file(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)  # MLflow puts the images of a local file into the current folder
    uri, workdir = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "my run"
    workdir.mkdir()
    named = f"mlflow:tracking_uri={uri},experiment=rooms"
    with pytest.raises(StoppedError):
        train(workdir, named, 1, 3, error=StoppedError("stop"))
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("rooms").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("my run", "KILLED")
    many = {f"many.{number}": number for number in range(150)}  # more than one request takes
    places = train(workdir, named, 3, 4, CONFIG | many | {"train.log_every": 10, "data.builder": ""})
    assert places["mlflow"] == f"run my run of the experiment rooms at {uri}"
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss/total")
    assert sorted((metric.step, metric.value) for metric in history) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "eval/depth/rmse")] == [2, 4]
    pictures = [artifact.path for artifact in client.list_artifacts(run.info.run_id, "images")]
    assert len([path for path in pictures if path.endswith(".png")]) == 2
    assert run.data.params["optim.lr"] == "0.5"
    assert run.data.params["many.149"] == "149"
    assert run.data.params["train.log_every"] == "20"
    assert run.data.tags["now train.log_every"] == "10"
    assert run.data.tags["task depth"] == "loss depth_l1"
    train(workdir, named, 3, 3, CONFIG | {"optim.lr": 0.25})  # repeats a step with another rate
    (other,) = (each for each in client.search_runs([experiment]) if each.info.run_id != run.info.run_id)
    assert other.data.params["optim.lr"] == "0.25"
    assert [m.step for m in client.get_metric_history(other.info.run_id, "train/loss/total")] == [1, 2, 3]


def test_options_are_documented_in_order():
    """`mtl list loggers` and the errors show the fields of the options; each stands in the docstring."""
    for entry in loggers.LOGGERS.values():
        names = list(getattr(entry.options, "__dataclass_fields__", {}))
        text = entry.options.__doc__ or ""
        places = [text.index(f"        {name}: ") for name in names]
        assert all(one < other for one, other in itertools.pairwise(places))
