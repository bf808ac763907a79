"""The log of a run: what is in the files at once, full disks, loggers that fail, and lines that are damaged."""

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from mtl_jax import experiment, loggers
from mtl_jax.loggers import RunStart
from mtl_jax.loggers.registry import Entry
from mtl_jax.runtime import atomic_files, processes
from mtl_jax.runtime.messages import WriteError
from mtl_jax.train import banner, writer
from mtl_jax.train.stop import StoppedError
from mtl_jax.train.writer import Writer
from tests import tiny
from tests.processes import ROOT

KEPT = b'{"step": 1, "kind": "train", "loss/total": 2.5}'
DAMAGED = {
    "a byte": b'{"step": 1, "ki\xffnd": "train"}',
    "cut": b'{"step": 1, "kin',
    "nothing": b"",
    "zeros": b"\0" * 40,
    "a list": b"[]",
    "a number": b"1",
    "another encoding": '{"step": 1, "kind": "train"}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "no step": b'{"kind": "train", "loss/total": 1.0}',
    "a step in words": b'{"step": "x", "kind": "train"}',
    "a part of a step": b'{"step": 1.5, "kind": "train"}',
    "a true step": b'{"step": true, "kind": "train"}',
    "a step before the first": b'{"step": -1, "kind": "train"}',
    "an endless step": b'{"step": 1' + b"0" * 30 + b', "kind": "train"}',
    "no kind": b'{"step": 1}',
    "a kind that is a number": b'{"step": 1, "kind": 3}',
    "not a number": b'{"step": 1, "kind": "train", "loss/total": NaN}',
    "infinity": b'{"step": 1, "kind": "train", "loss/total": 1e999}',
    "a number beyond all": b'{"step": 1, "kind": "train", "loss/total": 1' + b"0" * 400 + b"}",
    "a text": b'{"step": 1, "kind": "train", "loss/total": "2.5"}',
}


def open_log(workdir, step=0):
    """The default loggers of a run that begins, or continues from a step."""
    return Writer(loggers.parse(["tensorboard"]), RunStart(workdir, step))


def events(workdir):
    """The events in the files for TensorBoard, with all checksums compared."""
    read = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        assert path.name.startswith("events.out.tfevents.")
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            head, content, tail = data[8:12], data[12 : 12 + length], data[12 + length : 16 + length]
            assert head == struct.pack("<I", masked_crc32c(data[:8]))
            assert tail == struct.pack("<I", masked_crc32c(content))
            read.append(Event.FromString(content))
            data = data[16 + length :]
    return read


def test_every_line_is_in_the_files_at_once(tmp_path):
    log = open_log(tmp_path)
    for step in (1, 2):
        log.write(step, "train", {"loss/total": 0.5 * step, "learning_rate": 0.25})
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        assert json.loads(lines[-1]) == {
            "step": step,
            "kind": "train",
            "loss/total": 0.5 * step,
            "learning_rate": 0.25,
        }
        assert len(lines) == step
        last = events(tmp_path)[-1]
        assert last.step == step
        assert [(value.tag, value.simple_value) for value in last.summary.value] == [
            ("train/loss/total", 0.5 * step),
            ("train/learning_rate", 0.25),
        ]
    log.close()
    assert len(events(tmp_path)) == 4


def test_tensorboard_hides_what_was_written_after_the_step_that_a_run_continues_from(tmp_path):
    for step in (0, 3):
        open_log(tmp_path, step).close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # within one second, and neither overwrites the other
    starts = [event.step for event in events(tmp_path) if event.session_log.status == SessionLog.START]
    assert sorted(starts) == [1, 4]
    assert {event.file_version for event in events(tmp_path)} == {"brain.Event:2", ""}


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "on_first", lambda action: None)
    log = open_log(tmp_path)
    log.write(1, "train", {"loss/total": 1.0})
    log.close()
    assert not list(tmp_path.iterdir())


def test_loggers_are_told_which_fields_decide_what_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(banner, "facts", lambda start: {})
    monkeypatch.setattr(writer, "Writer", lambda choices, start: start)
    begun = SimpleNamespace(experiment=experiment.make(tiny.config("")), workdir=tmp_path, step=0)
    start = writer.open_log((), begun, evaluates_again=False)
    assert start.config["optim.lr"] == start.fixed["optim.lr"] == 1e-3
    assert not start.fixed.keys() & {"train.log_every", "train.loggers", "data.data_dir"}


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match=r"step 1: .* \{'loss/total': nan\}"):
        log.write(1, "train", {"loss/total": float("nan")})
    log.close()
    assert (tmp_path / "log.jsonl").read_bytes() == b""


class FullDisk(io.FileIO):
    """A file on a disk that is full, for files and operations that `fails` names."""

    fails: tuple[str, str] = ("", "")
    code = errno.ENOSPC

    def _check(self, operation):
        name, failing = self.fails
        if name in str(self.name) and operation == failing:
            raise OSError(self.code, os.strerror(self.code))

    def __init__(self, path, mode):
        super().__init__(path, mode)
        try:
            self._check("open")
        except OSError:
            super().close()
            raise

    def write(self, data):
        self._check("write")
        return super().write(data)

    def close(self):
        if not self.closed:
            super().close()
            self._check("close")


def write_one_line(workdir):
    log = open_log(workdir)
    try:
        log.write(1, "train", {"loss/total": 1.0})
    finally:
        log.close()


@pytest.mark.parametrize("operation", ["open", "write", "close"])
@pytest.mark.parametrize(("name", "what"), [("log.jsonl", "the log"), ("tfevents", "the events for TensorBoard")])
def test_a_full_disk_ends_the_run_with_the_file_and_a_remedy(tmp_path, monkeypatch, name, what, operation):
    opened = []

    def open_file(*args):
        opened.append(FullDisk(*args))
        return opened[-1]

    monkeypatch.setattr(io, "FileIO", open_file)
    monkeypatch.setattr(FullDisk, "fails", (name, operation))
    with pytest.raises(WriteError, match=rf"cannot write {what}, {tmp_path}.*No space left.*; free space .*") as caught:
        write_one_line(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("operation", ["write", "close"])
@pytest.mark.parametrize("name", ["log.jsonl", "tfevents"])
def test_another_error_names_the_file_as_well(tmp_path, monkeypatch, name, operation):
    monkeypatch.setattr(io, "FileIO", FullDisk)
    monkeypatch.setattr(FullDisk, "fails", (name, operation))
    monkeypatch.setattr(FullDisk, "code", errno.EIO)
    with pytest.raises(OSError, match=rf"Input/output error: '{tmp_path}.*{name}") as caught:
        write_one_line(tmp_path)
    assert caught.value.errno == errno.EIO


SMALL_DISK = """
import sys
from pathlib import Path
from array_record.python import array_record_module
from mtl_jax.runtime import messages
from mtl_jax import loggers
from mtl_jax.train.writer import Writer

folder = Path(sys.argv[1])
log = Writer(loggers.parse(["tensorboard"]), loggers.RunStart(folder))
try:
    for step in range(1, 10**6):
        log.write(step, "train", {"loss/total": 1.0})
except OSError as error:
    print(error)
log.close()
(folder / "log.jsonl").unlink()
try:
    with messages.writing("the data set", folder):
        records = array_record_module.ArrayRecordWriter(str(folder / "records"), "group_size:1")
        records.write(bytes(range(256)) * 1000)
        records.write(bytes(range(255, -1, -1)) * 10**6)
        records.close()
except OSError as error:
    print(error)
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 64 KB, which a process may mount for itself alone."""
    prefix = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    command = [*prefix, sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    log, records = done.stdout.splitlines()
    assert log.startswith(f"cannot write the {'log' if 'log.jsonl' in log else 'events for TensorBoard'}, {tmp_path}/")
    assert records.startswith(f"cannot write the data set, {tmp_path}: ")
    for line in (log, records):
        assert "No space left on device; free space on that disk" in line


def written(workdir, *lines):
    (workdir / "log.jsonl").write_bytes(b"".join(lines))
    return workdir / "log.jsonl"


def resume(workdir, step):
    open_log(workdir, step).close()
    return (workdir / "log.jsonl").read_bytes()


def line(step):
    return json.dumps({"step": step, "kind": "train", "loss/total": 1.0 / (step + 1)}).encode() + b"\n"


def test_a_damaged_line_takes_no_other_with_it(tmp_path, caplog):
    lines = [line(step) for step in range(1, 101)]
    lines[9] = lines[9].replace(b"total", b"to\xffal")
    before = written(tmp_path, *lines).read_bytes()
    assert resume(tmp_path, 95) == b"".join(lines[:9] + lines[10:95])
    copy = tmp_path / "log.damaged_1.jsonl"
    assert copy.read_bytes() == before
    assert f"1 damaged line(s) (10) cannot be read and are left out; {copy} keeps the log as it was" in caplog.text
    caplog.clear()
    assert resume(tmp_path, 95) == b"".join(lines[:9] + lines[10:95])
    assert not caplog.records
    written(tmp_path, *lines[:10])
    resume(tmp_path, 95)
    assert (tmp_path / "log.damaged_2.jsonl").read_bytes() == b"".join(lines[:10])
    assert copy.read_bytes() == before


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_all_kinds_of_damaged_lines(tmp_path, caplog, damaged):
    path = written(tmp_path, KEPT + b"\n", damaged + b"\n", line(2))
    assert [content["step"] for content in loggers.read(path)] == [1, 2]
    assert f"{path}: 1 damaged line(s) (2) cannot be read and are left out" in caplog.text
    assert resume(tmp_path, 2) == KEPT + b"\n" + line(2)
    assert (tmp_path / "log.damaged_1.jsonl").read_bytes() == KEPT + b"\n" + damaged + b"\n" + line(2)


def test_a_torn_last_line_is_dropped(tmp_path, caplog):
    path = written(tmp_path, line(1), line(2), line(3)[:-9])
    with caplog.at_level(logging.INFO):
        assert [content["step"] for content in loggers.read(path)] == [1, 2]
        assert not caplog.records  # a run may be writing the line just now
        assert resume(tmp_path, 3) == line(1) + line(2)
    assert "the last line was cut short and is dropped" in caplog.text
    assert not list(tmp_path.glob("log.damaged*"))


def test_a_last_line_that_only_lacks_its_end_stays(tmp_path):
    written(tmp_path, line(1), line(2).rstrip())
    assert resume(tmp_path, 3) == line(1) + line(2)


def test_a_log_that_needs_no_change_is_not_written_again(tmp_path, monkeypatch):
    """A run can then continue on a disk that has just enough room for its lines."""
    written(tmp_path, line(1), line(2))
    monkeypatch.setattr(atomic_files, "write", pytest.fail)
    assert resume(tmp_path, 2) == line(1) + line(2)


def test_no_log(tmp_path):
    assert loggers.read(tmp_path / "log.jsonl") == []


class Failing(loggers.Logger):
    """A logger of a service that is lost at step 2."""

    def __init__(self, start, options):
        self.sent, self.closed = [], None
        opened.append(self)

    def write(self, step, kind, values):
        if step == 2:
            raise RuntimeError("the service is gone")
        self.sent.append(step)

    def close(self, outcome):
        self.closed = outcome


opened = []


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "failing", Entry(Failing, loggers.NoOptions, "", ""))
    opened.clear()


def test_a_logger_that_fails_costs_no_line_and_one_warning(tmp_path, failing, caplog):
    with Writer(loggers.parse(["failing", "csv"]), RunStart(tmp_path)) as log:
        for step in range(1, 5):
            log.write(step, "train", {"loss/total": 1.0 / step})
    assert [content["step"] for content in loggers.read(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    assert len((tmp_path / "csv" / "train.csv").read_text().splitlines()) == 5
    assert opened[0].sent == [1]
    assert len(caplog.records) == 1
    assert "the logger failing has failed at step 2 (RuntimeError: the service is gone) and is left out" in caplog.text


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "finished"), (StoppedError("stop"), "stopped"), (KeyError("x"), "failed")]
)
def test_loggers_are_told_how_the_run_ended(tmp_path, failing, error, outcome):
    with contextlib.suppress(StoppedError, KeyError), Writer(loggers.parse(["failing"]), RunStart(tmp_path)):
        if error is not None:
            raise error
    assert opened[0].closed == outcome


def test_a_service_that_cannot_be_opened_is_an_error_at_the_start(tmp_path, monkeypatch):
    def refuse(start, options):
        raise RuntimeError("no key")

    monkeypatch.setitem(loggers.LOGGERS, "closed", Entry(refuse, loggers.NoOptions, "", ""))
    with pytest.raises(ValueError, match=r"the logger closed cannot be opened \(RuntimeError: no key\)"):
        Writer(loggers.parse(["closed"]), RunStart(tmp_path))
