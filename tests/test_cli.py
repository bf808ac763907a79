"""What a user sees who gets something wrong: one paragraph, no traceback, nothing begun."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_jax import config as configs
from mtl_jax import experiment
from mtl_jax.train.checkpoint import Checkpoints
from tests import scripts, tiny

ROOT = Path(__file__).parents[1]


def _process(script, *args):
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)


def _assert_fails(process, *parts, status=1):
    assert process.returncode == status, process.stderr
    assert "Traceback" not in process.stderr
    for part in parts:
        assert part in process.stderr


HOSTILE = "a\x1b[31m\r\nerror: b\a\x9b2J\u202etxt"  # colour, return, line break, bell, C1 control, direction of text


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("ValueError(text)", r"error: a\x1b[31m\r"),
        ("RuntimeError(text)", r"  RuntimeError: a\x1b[31m\r"),
        (
            "OSError(28, 'No space left on device', text)",
            r"error: cannot write a\x1b[31m\r",
        ),
    ],
)
def test_names_cannot_control_the_terminal(end, last):
    """Output, log lines, error messages and tracebacks; what follows a line break in a name is indented."""
    code = (
        f"import logging, sys; from mtl_jax import cli; text = {HOSTILE!r}\n"
        "def add_arguments(parser):\n"
        "    pass\n"
        "def run(arguments):\n"
        "    cli.show(text)\n"
        "    logging.getLogger('mtl_jax.data').info('%s', text)\n"
        f"    raise {end}\n"
        "cli.run(sys.modules['__main__'], 'mtl test')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=600)
    rest = r"error: b\x07\x9b2J\u202etxt"
    assert done.stdout.decode().split("\n") == [r"a\x1b[31m\r", rest, ""]
    log, after_log, *_, message, after_message, end_of_text = done.stderr.decode().split("\n")
    assert (log, after_log) == (r"a\x1b[31m\r", f"  {rest}")
    assert message == last
    assert after_message.startswith(f"  {rest}")
    assert after_message.endswith("run the same command again" if "OSError" in end else rest)
    assert end_of_text == ""
    assert done.returncode == 1


def test_scripts_print_by_one_function():
    """`cli.show` cleans what it prints."""
    printing = [
        f"{path.name}:{node.lineno}"
        for path in sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "mtl_jax" / "commands").glob("*.py")])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert not printing


def test_unknown_config_field(tmp_path):
    process = scripts.run(
        "train", "--config", "configs/demo.py", "--config.optim.learning_rate=1", "--workdir", tmp_path / "run"
    )
    _assert_fails(
        process, "no field optim.learning_rate", "the nearest are", "`mtl train --help` lists the fields", status=2
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"remat": false}', "name 'false' is not defined"), ("def get_config(", "was never closed")],
)
def test_a_config_file_that_is_no_python(tmp_path, content, message):
    path = tmp_path / "config.py"
    path.write_text(content)
    process = scripts.run("train", "--config", path, "--workdir", tmp_path / "run")
    _assert_fails(process, str(path), message, "a recipe is a Python file with a function get_config")


def test_a_wrong_allocator():
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts/summary.py")],
        env=os.environ | {"MTL_JAX_ALLOCATOR": "jemalloc"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    _assert_fails(process, "MTL_JAX_ALLOCATOR is 'jemalloc'")


def test_no_config(tmp_path):
    _assert_fails(scripts.run("train", "--workdir", tmp_path / "run"), "the recipe is missing", status=2)


@pytest.mark.slow
def test_wrong_option_of_a_config_file(tmp_path):
    process = scripts.run("train", "--config", "configs/nyud_mtinet.py:tasks=edge", "--workdir", tmp_path / "run")
    _assert_fails(process, "'tasks=edge' is not one of this recipe's (aux=, backbone=hrnet_w18, release=astmt|survey)")


def test_missing_data_folder(tmp_path):
    missing = tmp_path / "nowhere" / "data"
    process = scripts.run(
        "train", "--config", "configs/demo.py", f"--config.data.data_dir={missing}", "--workdir", tmp_path / "run"
    )
    _assert_fails(process, str(missing), "does not exist")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_missing_original_files(tmp_path):
    process = scripts.run(
        "train",
        "--config=configs/nyud_mtinet.py",
        "--config.model.pretrained=",
        f"--config.data.data_dir={tmp_path}",
        f"--config.data.manual_dir={tmp_path / 'originals'}",
        f"--workdir={tmp_path / 'run'}",
    )
    _assert_fails(process, f"{tmp_path / 'originals'}, given as manual_dir, is neither a folder nor an archive")


def test_no_run_no_checkpoint_no_images(tmp_path):
    _assert_fails(scripts.run("evaluate", "--workdir", tmp_path), "is no work directory of a run", "--workdir")
    (tmp_path / experiment.CONFIG).write_text(configs.to_json(tiny.config(tmp_path)))
    _assert_fails(scripts.run("evaluate", "--workdir", tmp_path), "has no checkpoints", "mtl train RECIPE")
    process = scripts.run("predict", "--workdir", tmp_path, "--images", f"{tmp_path}/*.jpg", "--out", tmp_path / "out")
    _assert_fails(process, f"no file matches --images '{tmp_path}/*.jpg'")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_training_continues_and_every_script_works(tmp_path, monkeypatch):
    """The whole path with the real model: SIGKILL in the middle, the same command again, evaluation, prediction."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the flag of conftest.py is slow where LLVM optimises
    command = [
        sys.executable,
        "scripts/train.py",
        "--config=configs/demo.py",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.builder=rendered_scenes/nyud_tiny",
        f"--config.data.data_dir={tmp_path}",
        "--config.data.image_size=(64, 64)",
        "--config.train.batch_size=2",
        "--config.train.eval_batch_size=2",
        "--config.train.checkpoint_every=2",
        "--config.train.epochs=3",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    finished = tmp_path / "run" / "checkpoints" / "4"
    deadline = time.monotonic() + 1200  # most of it compiles
    try:
        while not finished.exists():
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    assert Checkpoints(tmp_path / "run", read_only=True).resolve("latest") == 18

    evaluated = _process("evaluate", "--workdir", tmp_path / "run", "--save_predictions", tmp_path / "saved")
    assert "single-task results were" in evaluated.stdout, evaluated.stderr
    files = sorted((tmp_path / "saved" / "depth").glob("*.mat"))
    assert len(files) == 5
    results = (tmp_path / "run" / "results.json").read_text()
    files[2].unlink()  # as if it had been interrupted
    kept = files[1].stat().st_mtime_ns
    again = _process("evaluate", "--workdir", tmp_path / "run", "--save_predictions", tmp_path / "saved")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "results.json").read_text() == results
    assert files[2].exists()
    assert files[1].stat().st_mtime_ns == kept
    in_memory = _process("evaluate", "--workdir", tmp_path / "run")
    assert in_memory.returncode == 0, in_memory.stderr
    assert (tmp_path / "run" / "results.json").read_text() == results
    predicted = _process("predict", "--workdir", tmp_path / "run", "--split", "val", "--out", tmp_path / "out")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "out" / "panels").glob("*.png"))) == 5
