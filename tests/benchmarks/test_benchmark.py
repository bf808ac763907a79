"""The script that measures: on a few small images, without looking at the times."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import balance, batches, comparison, compile, device, eval, infer, timing, train
from mtl_jax import backbones, balancing
from mtl_jax.reports import cost
from tests import scripts, tiny

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"
TINY = ("--images=4", "--batch_size=2", "--batches=1", "--repeats=1", "--scale=0.2")
WITHOUT_TORCH = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "torch" else find(name, *args)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*args, prefix=()):
    command = [sys.executable, *prefix, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=SCRIPT.parents[1])


@pytest.mark.slow
def test_input_pascal(tmp_path):
    pytest.importorskip("torch")
    output = tmp_path / "numbers.json"
    result = run("input", *TINY, "--recipe=pascal", "--workers=0,1", f"--json={output}")
    assert result.returncode == 0, result.stderr
    assert "| recipe | loader | workers | images/s" in result.stdout
    assert "pascal, largest deviation: image " in result.stdout
    numbers = json.loads(output.read_text())
    assert [(row["loader"], row["workers"]) for row in numbers["rows"]] == [
        (kind, workers)
        for workers in (0, 1)
        for kind in ("mtl_jax", "DataLoader, original files", "DataLoader, labels as .npy")
    ]
    assert set(numbers["deviations"]["pascal"]) == {"image", "semseg", "human_parts", "sal", "normals", "edge"}
    assert all(row["rate"] > 0 for row in numbers["rows"])


@pytest.mark.slow
def test_input_without_torch(tmp_path):
    """Our half is measured, from files kept for the next time."""
    args = ("input", *TINY, "--recipe=nyud_survey", "--workers=0", f"--data_dir={tmp_path}")
    for _ in range(2):
        result = run(*args, prefix=("-c", WITHOUT_TORCH))
        assert result.returncode == 0, result.stderr
        assert "torch is not installed: only mtl_jax is measured" in result.stdout
        assert "| nyud_survey | mtl_jax | 0 |" in result.stdout
        assert "DataLoader" not in result.stdout
    assert "Generating" not in result.stderr


def test_turns():
    calls = []

    def program(name):
        return lambda steps: calls.append(name * steps) or len(calls)

    timed = timing.alternate({name: program(name) for name in "ab"}, repeats=2, warm_up=1, steps=3)
    assert "".join(calls) == "ab" + "aaabbb" * 3
    assert [timed[name].result for name in "ab"] == [1, 2]
    assert all(len(found.seconds) == 2 and found.median >= 0 for found in timed.values())
    for turns in ({"repeats": 0}, {"repeats": 1, "steps": 0}):
        with pytest.raises(ValueError, match="expected at least 1 of 1"):
            timing.alternate({"a": program("a")}, warm_up=0, **turns)


@pytest.fixture
def config(data_dir, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", tiny.build_backbone)
    config = tiny.config(data_dir)
    config.data.dataset, config.data.tasks = "pascal", ("semseg", "sal", "normals", "edge")
    config.model.name = "baseline"
    return config


@pytest.fixture
def small_peaks(monkeypatch):
    """Those of the device, measured in a moment."""
    peaks = device.Peaks(device.matmul_flops("float32", size=64), device.bandwidth(megabytes=1))
    monkeypatch.setattr(device, "peaks", lambda dtype: peaks)


def test_batches(config):
    size = (config.train.batch_size, *config.data.image_size)
    shapes = {
        "image": (*size, 3),
        "semseg": (*size, 1),
        "sal": (*size, 1),
        "normals": (*size, 3),
        "edge": (*size, 1),
    }
    assert {name: value.shape for name, value in batches.train_batch(config).items()} == shapes
    found = batches.eval_batch(config)
    assert {name: value.shape for name, value in found.items()} == shapes | {"index": size[:1], "valid": size[:1]}
    assert found["image"].dtype == np.uint8


@pytest.mark.slow
def test_predictions(config):
    programs = infer.programs(config, [], None)
    assert list(programs) == ["mtl_jax folded", "mtl_jax"]
    folded, unfolded = (program(1) for program in programs.values())
    assert set(folded) == {"semseg", "sal", "normals", "edge"}
    assert folded["normals"].shape == (4, 64, 64, 3)
    assert infer.deviation(unfolded, folded) < infer.TOLERANCE["float32"]
    assert programs["mtl_jax folded"].flops == 2 * 4 * cost.summarize(config).multiply_adds


def test_distance_of_predictions():
    ours = {"semseg": np.array([0, 1, 2, 3]), "depth": np.array([3.0, 4.0])}
    assert infer.deviation(ours, ours) == 0
    assert infer.deviation(ours, ours | {"semseg": np.array([0, 1, 2, 2])}) == 0.25
    assert infer.deviation(ours, ours | {"depth": np.array([3.0, 5.0])}) == pytest.approx(0.2)


@pytest.mark.slow
def test_scores(config):
    ((name, step),) = eval.programs(config, [], None).items()
    scores = step(1)
    assert name == "mtl_jax"
    assert scores == step(2)
    assert set(scores) == {"semseg", "sal", "normals", "edge"}
    assert all(np.isfinite(value) for value in scores.values())
    assert eval.deviation(scores, scores | {"edge": 1.5 * scores["edge"]}) == pytest.approx(0.5)


class Other:
    """A program that is not ours."""

    memory = None

    def __init__(self, result):
        self.result = result

    def __call__(self, steps):
        return self.result


def compare(programs, deviation=train.deviation):
    turns = {"repeats": 2, "warm_up": 0, "steps": 1}
    return comparison.compare(programs, deviation, train.TOLERANCE, dtype="float32", batch_size=4, **turns)


def test_training_steps(config, small_peaks):
    ours = train.TrainStep(config, batches.train_batch(config))
    found = compare({"mtl_jax": ours, "other": Other(None)}, lambda ours, other: 0.0)
    assert ours() < found.timed["mtl_jax"].result  # it learns the batch
    assert ours.flops == 6 * config.train.batch_size * cost.summarize(config).multiply_adds
    costs = ours.costs
    assert costs.memory > costs.temporary > 0
    assert costs.instructions > 100
    assert costs.operations > 100
    assert found.table().splitlines()[2].startswith("| mtl_jax |")
    assert " | - | " in found.table().splitlines()[3]
    assert "GFLOP/s of the model" in found.describe()
    assert "allocator of all programs: as the system sets it" in found.describe()
    assert "other" not in found.describe()
    numbers = json.loads(json.dumps(found.numbers()))
    assert numbers["rows"]["mtl_jax"]["memory"] == ours.memory
    assert numbers["rows"]["mtl_jax"]["flops"] == ours.flops
    assert len(numbers["rows"]["other"]["seconds"]) == 2
    assert numbers["versions"]["jax"] == jax.__version__
    assert numbers["allocator"] == "as the system sets it"


@pytest.mark.slow
def test_steps_that_are_balanced(config, small_peaks):
    """All take the same first step, so that their losses agree; those that share a program go on as in their own."""
    methods = ["rlw", "fixed", "cagrad:c=0.5", "imtl_g", "uncertainty", "famo"]
    programs = balance.programs(config, methods)
    assert list(programs) == ["fixed", "rlw", "cagrad:c=0.5", "imtl_g", "uncertainty", "famo"]
    found = compare(programs)
    assert max(found.deviations.values()) < train.TOLERANCE["float32"]
    shared = balance.programs(config, ["cagrad:c=0.5", "imtl_g"])["imtl_g"]
    own = train.TrainStep(replace(config, balancing="imtl_g"), batches.train_batch(config))
    plain = train.TrainStep(config, batches.train_batch(config))
    third = own(3)
    assert shared(3) == pytest.approx(third, rel=1e-5)
    assert abs(plain(3) / third - 1) > 1e-4


def test_methods_that_do_not_suit_are_refused_before_anything_is_compiled(config, monkeypatch):
    monkeypatch.setattr(train, "TrainStep", None)
    with pytest.raises(ValueError, match="unknown balancing method 'nonsense'"):
        balance.programs(config, ["cagrad", "nonsense"])
    other = replace(config, model=replace(config.model, name="cross_stitch"))
    with pytest.raises(ValueError, match=r"^mgda_ub: .*CrossStitch does not have"):
        balance.programs(other, ["cagrad", "mgda_ub"])


METHODS = {"losses": ("dwa", "imtl_l", "rlw"), "gramian": ("gradnorm", "cagrad", "nash_mtl", "imtl_g")}


@pytest.mark.parametrize(
    ("needs", "position"), [(needs, i) for needs, names in METHODS.items() for i in range(len(names))]
)
def test_one_of_several_methods(needs, position):
    """It decides as the method alone, over several steps, and the others learn nothing."""
    balancers = [balancing.BALANCERS[name]() for name in METHODS[needs]]
    shared = {"w": jax.numpy.ones(6)}
    one_of, alone = balance.one_of(balancers), balancers[position]
    state, own_state = one_of.init(3, shared), alone.init(3, shared)
    first = state = state._replace(followed=jax.numpy.int32(position))
    assert one_of.needs == needs
    for step in range(3):
        gradients = np.random.default_rng(step).normal(size=(3, 6)).astype(np.float32)
        signals = balancing.Signals(jax.numpy.array([1.0, 2.0, 0.5]) / (step + 1), jax.random.key(step))
        signals = signals._replace(gramian=gradients @ gradients.T)
        decision, state = jax.jit(one_of.update)(state, signals)
        own, own_state = jax.jit(alone.update)(own_state, signals)
        np.testing.assert_allclose(decision.weights, own.weights, rtol=1e-5, atol=1e-6)
        specific = np.ones(3) if own.specific is None else own.specific
        np.testing.assert_allclose(decision.specific, specific, rtol=1e-5)
    states = (*first.states[:position], own_state, *first.states[position + 1 :])
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5), state.states, states)


def test_several_devices_are_not_compared_with_one(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="jax has 2 devices, of which PyTorch would use one; set CUDA_VISIBLE_DEVICES"):
        compare({"mtl_jax": Other(1.0)})


def test_programs_that_differ():
    with pytest.raises(ValueError, match=r"differ from those of mtl_jax by \{'other': .*do not do the same"):
        compare({"mtl_jax": Other(1.0), "equal": Other(1.0), "other": Other(1.01)})
    with pytest.raises(ValueError, match="'other': nan"):
        compare({"mtl_jax": Other(1.0), "other": Other(float("nan"))})


def test_compilation(config):
    rows = compile.ours(config)
    assert list(rows) == ["mtl_jax training step", "mtl_jax prediction"]
    assert all(row["seconds"] > 0 and row["instructions"] > 10 for row in rows.values())
    twice = {name: dict.fromkeys(compile.CACHES, row) for name, row in rows.items()}
    twice["torch compile first training step"] = {state: {"seconds": 1.0} for state in compile.CACHES}
    lines = compile.table(twice).splitlines()
    assert lines[-1] == "| torch compile first training step | 1.0 s | 1.0 s |  |  |"
    assert lines[2].startswith("| mtl_jax training step | ")


SMALL = (
    "--config=configs/nyud_single.py:task=depth,backbone=resnet18_dilated",
    "--config.data.image_size=(64, 64)",
    "--config.train.batch_size=2",
    "--repeats=1",
    "--warm_up=0",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "ours"), [("train", ["mtl_jax"]), ("infer", ["mtl_jax folded", "mtl_jax"]), ("eval", ["mtl_jax"])]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_against_torch(tmp_path, what, ours, dtype):
    pytest.importorskip("torch")
    output = tmp_path / "numbers.json"
    result = run(what, *SMALL, f"--config.model.dtype={dtype}", "--against=eager,channels_last", f"--json={output}")
    assert result.returncode == 0, result.stderr
    rows = json.loads(output.read_text())["rows"]
    names = [*ours, "torch eager", "torch channels_last"]
    assert list(rows) == names
    assert all(f"| {name} |" in result.stdout for name in names)
    assert max(row["deviation"] for row in rows.values()) < (1e-5 if dtype == "float32" else 3e-2)


@pytest.mark.slow
def test_compilation_in_fresh_processes(tmp_path):
    output = tmp_path / "numbers.json"
    result = run("compile", *SMALL, f"--json={output}")
    assert result.returncode == 0, result.stderr
    numbers = json.loads(output.read_text())
    assert numbers["versions"]["jax"] == jax.__version__
    rows = numbers["rows"]
    assert list(rows) == ["mtl_jax training step", "mtl_jax prediction"]
    for row in rows.values():
        assert row["filled"]["compilation"] < row["empty"]["compilation"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("training",),
            "argument WHAT: invalid choice: 'training' (choose from 'train', 'balance', 'infer', 'eval', 'learn', ",
        ),
        (("train",), "error: --config is missing: give it a recipe"),
        (
            ("train", "--config=configs/demo.py", "--against=eager,jit"),
            "error: --against has jit; the ways to run PyTor",
        ),
        (("input", "--workers=two"), "'two' is not a list of numbers from 0, separated by commas"),
        ((), "the following arguments are required: WHAT"),
    ],
)
def test_errors(args, message):
    result = scripts.run("benchmark", *args)
    assert result.returncode in (1, 2)  # an error, or a wrong option
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
