"""The notation of loggers, tables as CSV, event files with images, and services that get every line once."""

import csv
import json
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import pytest
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from mtl_jax import field_values, loggers
from mtl_jax.loggers import RunStart
from mtl_jax.loggers.registry import Entry
from mtl_jax.loggers.wandb_run import WandbOptions
from mtl_jax.train.writer import Writer
from tests.train.test_writer import events


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tensorboard,csv", ("tensorboard", "csv")),
        ("tensorboard+csv", ("tensorboard", "csv")),
        ("", ()),
        ("csv,wandb:project=rooms,group=a", ("csv", "wandb:project=rooms,group=a")),
        ("wandb:tags=a+b,name=x, csv", ("wandb:tags=a+b,name=x", "csv")),
        ("mlflow:tracking_uri=http://host:5000,name=x,csv", ("mlflow:tracking_uri=http://host:5000,name=x", "csv")),
    ],
)
def test_a_list_of_loggers_on_the_command_line(text, expected):
    assert field_values.parse(text, tuple[str, ...]) == expected


def test_the_log_is_always_written_first():
    assert [choice.name for choice in loggers.parse(["csv"])] == ["jsonl", "csv"]
    assert [choice.name for choice in loggers.parse(["csv", "jsonl"])] == ["jsonl", "csv"]
    assert loggers.parse(["wandb:project=rooms,tags=a+b"])[1].options == WandbOptions("rooms", tags=("a", "b"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["wanbd"], r"unknown logger 'wanbd'.* Did you mean wandb\?"),
        (["csv", "csv"], "train.loggers names 'csv' twice"),
        (["wandb:projekt=a"], r"'projekt=a' is no parameter=value of the logger wandb; it takes project="),
        (["csv:folder=a"], "the logger csv; it takes no parameters"),
    ],
)
def test_a_wrong_list_of_loggers(texts, message):
    with pytest.raises(ValueError, match=message):
        loggers.parse(texts)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Entry(loggers.wandb_run.Wandb, WandbOptions, "no_such", "wandb"))
    with pytest.raises(ValueError, match=r"names 'wandb', which needs the package no_such.*mtl-jax\[wandb\]"):
        loggers.check_installed(loggers.parse(["wandb"]))


def rows(workdir, kind):
    with (workdir / "csv" / f"{kind}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_equal_the_log(tmp_path):
    """After an interruption without doubled rows, with a column that comes later, and with a log that was there."""
    with Writer(loggers.parse([]), RunStart(tmp_path)) as log:
        log.write(1, "train", {"loss": 0.1})
    with Writer(loggers.parse(["csv"]), RunStart(tmp_path, 1)) as log:
        log.write(2, "train", {"loss": 0.2})
        assert rows(tmp_path, "train") == [{"step": "1", "loss": "0.1"}, {"step": "2", "loss": "0.2"}]
        log.write(3, "train", {"loss": 0.3, "skipped": 4.0})
        log.write(3, "eval", {"depth/rmse": 1.5})
    with Writer(loggers.parse(["csv"]), RunStart(tmp_path, 2)) as log:
        assert not (tmp_path / "csv" / "eval.csv").exists()
        log.write(3, "train", {"loss": 0.3, "skipped": 4.0})
        log.write(4, "train", {"loss": 0.4})
        log.write(4, "eval", {"depth/rmse": 1.25})
    assert [(row["step"], row["loss"], row["skipped"]) for row in rows(tmp_path, "train")] == [
        ("1", "0.1", ""),
        ("2", "0.2", ""),
        ("3", "0.3", "4.0"),
        ("4", "0.4", ""),
    ]
    assert rows(tmp_path, "eval") == [{"step": "4", "depth/rmse": "1.25"}]


def test_a_table_takes_an_evaluation_without_any_score(tmp_path):
    """Training leaves out scores that are not finite."""
    with Writer(loggers.parse(["csv"]), RunStart(tmp_path)) as log:
        for step, scores in ((1, {}), (2, {"depth/rmse": 1.5}), (3, {})):
            log.write(step, "eval", scores)
    assert [(row["step"], row["depth/rmse"]) for row in rows(tmp_path, "eval")] == [("1", ""), ("2", "1.5"), ("3", "")]


def image(name, level):
    picture = np.full((20, 30, 3), level, np.uint8)
    return loggers.LoggedImage(name, f"id of {name}", picture, cv2.imencode(".jpg", picture)[1].tobytes())


def test_images_are_files_and_events(tmp_path):
    with Writer(loggers.parse(["tensorboard"]), RunStart(tmp_path)) as log:
        log.write_images(3, [image("0_room", 40), image("5_hall", 90)])
    written = cv2.imread(str(tmp_path / "images" / "5_hall" / "step_00000003.jpg"))
    assert written.shape == (20, 30, 3)
    np.testing.assert_allclose(written, 90, atol=2)
    drawn = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    assert [(step, value.tag) for step, value in drawn] == [(3, "images/0_room"), (3, "images/5_hall")]
    assert (drawn[0][1].image.height, drawn[0][1].image.width, drawn[0][1].image.colorspace) == (20, 30, 3)
    decoded = cv2.imdecode(np.frombuffer(drawn[0][1].image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(decoded, 40, atol=2)


def test_tensorboard_has_the_configuration_and_the_facts(tmp_path):
    start = RunStart(
        tmp_path,
        config={"optim.lr": 0.5, "train.split_state": True, "data.tasks": ("depth",)},
        facts={"software": "jax 1 | flax 2"},
        scores=["depth/rmse"],
    )
    Writer(loggers.parse(["tensorboard"]), start).close()
    values = {value.tag: value for event in events(tmp_path) for value in event.summary.value}
    session = HParamsPluginData.FromString(values["_hparams_/session_start_info"].metadata.plugin_data.content)
    stored = session.session_start_info.hparams
    assert stored["optim.lr"].number_value == 0.5
    assert stored["train.split_state"].bool_value
    assert stored["data.tasks"].string_value == "('depth',)"
    experiment = HParamsPluginData.FromString(values["_hparams_/experiment"].metadata.plugin_data.content)
    assert [info.name.tag for info in experiment.experiment.metric_infos] == ["eval/depth/rmse"]
    assert values["run/text_summary"].tensor.string_val[0].decode().splitlines()[2:] == [
        r"| software | jax 1 \| flax 2 |"
    ]


@dataclass(frozen=True)
class Account:
    """Options of the service of the tests."""

    project: str = "a"


class Recorded(loggers.Service):
    """A service that keeps what it receives."""

    received: ClassVar[list] = []
    broken = False

    def __init__(self, start, options):
        super().__init__(start, "recorded", {"project": options.project})
        self.begin(self.continued() or f"run {start.step}")

    def send(self, step, kind, values):
        if self.broken:
            raise RuntimeError("the service is gone")
        self.received.append((self._id, step, kind, dict(values)))

    def send_images(self, step, images):
        self.received.append((self._id, step, "images", [each.name for each in images]))

    def close(self, outcome):
        pass


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "recorded", Entry(Recorded, Account, "", ""))
    monkeypatch.setattr(Recorded, "received", [])
    return Recorded


def train(workdir, first, last, *, account="a", evaluates_again=False, **fixed):
    """Logs steps like a run that continues from the step before the first one; each second step is evaluated.

    Args:
        fixed: Fields of the configuration that a run keeps.
    """
    start = RunStart(workdir, first - 1, evaluates_again, fixed=fixed)
    with Writer(loggers.parse([f"recorded:project={account}"]), start) as log:
        if evaluates_again:
            log.write(first - 1, "eval", {"rmse": float(first - 1)})
        for step in range(first, last + 1):
            log.write(step, "train", {"loss": 1.0 / step})
            if step % 2 == 0:
                log.write(step, "eval", {"rmse": float(step)})
                log.write_images(step, [image("0_room", step)])


def steps(service, kind):
    return [(run, step) for run, step, received, _ in service.received if received == kind]


def test_a_service_gets_every_line_once(tmp_path, service):
    train(tmp_path, 1, 5)
    train(tmp_path, 3, 4, evaluates_again=True)  # killed after step 5, and again after step 4
    train(tmp_path, 3, 6)
    assert steps(service, "train") == [("run 0", step) for step in range(1, 7)]
    assert steps(service, "eval") == steps(service, "images") == [("run 0", 2), ("run 0", 4), ("run 0", 6)]
    assert service.received[0] == ("run 0", 1, "train", {"loss": 1.0})


def test_a_service_gets_later_what_it_has_missed(tmp_path, service, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(service, "broken", True)
        train(tmp_path, 1, 3)
    assert not service.received
    assert caplog.text.count("has failed") == 1
    train(tmp_path, 4, 4)
    assert steps(service, "train") == [("run 0", step) for step in (1, 2, 3, 4)]
    assert steps(service, "eval") == [("run 0", 2), ("run 0", 4)]


def test_another_account_gets_a_new_run_with_all_lines(tmp_path, service, caplog):
    train(tmp_path, 1, 2)
    train(tmp_path, 3, 3, account="b")
    assert "the run was logged to project a and is now logged to project b" in caplog.text
    assert steps(service, "train") == [("run 0", 1), ("run 0", 2), ("run 2", 1), ("run 2", 2), ("run 2", 3)]


def test_a_run_that_begins_again_is_a_new_run_of_the_service(tmp_path, service):
    train(tmp_path, 1, 2)
    train(tmp_path, 1, 1)
    assert steps(service, "train") == [("run 0", 1), ("run 0", 2), ("run 0", 1)]


def test_steps_that_another_configuration_repeats_are_a_new_run_of_the_service(tmp_path, service, caplog):
    """The old run keeps its curve, which ends where it diverged."""
    train(tmp_path, 1, 5, lr=1.0, freeze=("backbone",))
    train(tmp_path, 3, 6, lr=0.5, freeze=("backbone",))
    assert (
        "recorded: lines up to step 5 were sent, and the run repeats the steps after step 2 with another configuration "
        "(lr: 1.0, now 0.5); it is now logged as a new run with all lines" in caplog.text
    )
    assert steps(service, "train")[5:] == [("run 2", step) for step in range(1, 7)]
    assert steps(service, "eval")[2:] == [("run 2", 2), ("run 2", 4), ("run 2", 6)]
    train(tmp_path, 5, 7, lr=0.5, freeze=["backbone"], added="a field of a later version")
    assert steps(service, "train")[11:] == [("run 2", 7)]


def test_another_configuration_after_the_last_line_continues_the_run_of_the_service(tmp_path, service):
    train(tmp_path, 1, 4, lr=1.0)
    train(tmp_path, 5, 5, lr=0.5)
    assert {run for run, *_ in service.received} == {"run 0"}
    train(tmp_path, 5, 5, lr=0.25)  # but it repeats step 5
    assert steps(service, "train")[5:] == [("run 4", step) for step in range(1, 6)]


def test_an_evaluation_that_another_configuration_repeats_is_a_new_run_of_the_service(tmp_path, service):
    train(tmp_path, 1, 2, protocol="survey")
    train(tmp_path, 3, 3, evaluates_again=True, protocol="astmt")
    assert steps(service, "eval") == [("run 0", 2), ("run 2", 2)]


def test_a_state_of_an_older_version_continues_the_run_of_the_service(tmp_path, service):
    train(tmp_path, 1, 5, lr=1.0)
    path = tmp_path / "loggers" / "recorded.json"
    content = json.loads(path.read_text())
    assert content.pop("config") == {"lr": 1.0}
    path.write_text(json.dumps(content))
    train(tmp_path, 3, 6, lr=0.5)
    assert steps(service, "train") == [("run 0", step) for step in range(1, 7)]


def test_a_damaged_state_of_a_service_names_the_file(tmp_path, service):
    train(tmp_path, 1, 2)
    path = tmp_path / "loggers" / "recorded.json"
    for content in ("{", json.dumps({"account": {"project": "a"}, "id": "run 0", "sent": {}, "config": 3})):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            train(tmp_path, 3, 3)
