"""The comparison of balancing methods: which runs there are, and what becomes of their scores."""

import json

import numpy as np
import pytest

from benchmarks import study
from mtl_jax import backbones, balancing, experiment
from mtl_jax.backbones import resnet
from mtl_jax.train.loop import NonFiniteLossError
from tests import scripts

BETTER = {"semseg": 0.5, "human_parts": 0.4, "sal": 0.6, "normals": 20.0, "edge": 0.05}
METRICS = {"semseg": "mIoU", "human_parts": "mIoU", "sal": "mIoU", "normals": "mean", "edge": "loss"}


def score(root, run, values):
    """What a run leaves behind; `values` None for one that diverged."""
    folder = run.folder(root)
    folder.mkdir(parents=True)
    results = values and {task: {METRICS[task]: value} for task, value in values.items() if task in run.tasks}
    (folder / study.SCORES).write_text(json.dumps(results))


def test_runs():
    single = study.singles([0, 1])
    tuning = study.tuning([*study.STARTS, *study.variations(study.STARTS[1])])
    assert [(run.tasks, run.seed) for run in single] == [((task,), seed) for seed in (0, 1) for task in study.TASKS]
    assert len({run.balancing for run in tuning}) == len(tuning) == 2 + 2 * len(study.TASKS)
    assert study.variations((1, 6)) == [(3, 6), (1 / 3, 6), (1, 18), (1, 2)]
    assert study.tuned((1 / 3, 6)) == "tuned_0.333333_6"
    runs = [*single, *tuning, *study.balanced({"dwa": "dwa", "dwa_window=5": "dwa:window=5"}, [0, 1])]
    assert len({run.group + str(run.seed) for run in runs}) == len(runs)
    for run in tuning:
        balancing.parse(run.balancing).init(len(study.TASKS), ())
        assert run.seed not in (0, 1)
    configs = {run.group: run.config(3, "data") for run in runs}
    assert {config.train.epochs for config in configs.values()} == {3}
    assert configs["single/sal"].model.name == "single_task"
    assert configs["dwa_window=5"].balancing == "dwa:window=5"


def test_table(tmp_path):
    single = study.singles([0, 1])
    for run in single:
        task = run.tasks[0]
        score(tmp_path, run, {task: BETTER[task] * (0.9, 1.1)[run.seed]})
    dwa, mgda = study.balanced({"dwa": "dwa"}, [0, 1]), study.balanced({"mgda": "mgda"}, [0, 1])
    lost = study.balanced({"famo": "famo"}, [0])
    score(tmp_path, dwa[0], BETTER)
    score(tmp_path, dwa[1], BETTER | {"semseg": 0.6, "normals": 18.0})  # a fifth better, and a tenth
    score(tmp_path, mgda[0], BETTER | {"edge": 0.04})
    score(tmp_path, mgda[1], None)
    score(tmp_path, lost[0], None)
    results = study.Study(tmp_path, single)
    rows = [results.row(runs) for runs in (dwa, mgda, lost)]
    np.testing.assert_allclose(rows[0].gains, [0, 0.3 / 5], atol=1e-12)
    assert [row.diverged for row in rows] == [0, 1, 1]
    assert rows[2].gain < rows[0].gain < rows[1].gain
    lines = results.table(rows).splitlines()
    assert lines[0].startswith("| method | Δ_m % | semseg mIoU ↑ |")
    assert lines[2] == "| single tasks | 0 | 0.5 | 0.4 | 0.6 | 20 | 0.05 |"
    assert lines[3].startswith("| dwa | +3.00 ± 4.24 | 0.55 |")
    assert lines[4].startswith("| mgda | +4.00; 1 diverged | 0.5 |")
    assert lines[5] == "| famo | 1 diverged |  |  |  |  |  |"


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A process of the study, on the smallest pictures."""
    monkeypatch.setattr(study, "BUILDER", "rendered_scenes/pascal_tiny")
    monkeypatch.setitem(resnet.VARIANTS, study.BACKBONE, resnet.VARIANTS["resnet18"])
    monkeypatch.setitem(backbones.BACKBONES, study.BACKBONE, resnet.build_resnet)
    return tmp_path


def test_a_run_that_diverges_is_over(prepared, monkeypatch):
    def fit(config, workdir):
        experiment.store_config(config, workdir)
        (workdir / "checkpoints").mkdir()
        raise NonFiniteLossError("nan")

    monkeypatch.setattr(study, "fit", fit)
    (run,) = study.balanced({"dwa": "dwa"}, [0])
    assert study.unscored([run], prepared, 1, "") == [run]
    study.train(run, prepared, 1, "")
    assert json.loads((run.folder(prepared) / study.SCORES).read_text()) is None
    assert study.unscored([run], prepared, 1, "elsewhere") == []
    with pytest.raises(ValueError, match=r"dwa/0 .*train\.epochs: 1 there, 2 now"):
        study.unscored([run], prepared, 2, "")


@pytest.mark.slow
def test_a_run(prepared):
    run = study.singles([0])[2]
    study.train(run, prepared / "runs", 1, str(prepared / "data"))
    folder = run.folder(prepared / "runs")
    assert np.isfinite(json.loads((folder / study.SCORES).read_text())["sal"]["mIoU"])
    assert not (folder / "checkpoints").exists()


def test_wrong_methods_are_refused_first(tmp_path):
    result = scripts.run("study_balancing", f"--workdir={tmp_path}", "--methods=dwa,cagrd")
    assert result.returncode == 1
    assert "cagrd" in result.stderr
    assert not list(tmp_path.iterdir())
