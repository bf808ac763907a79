"""Runs in one table."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mtl_jax import experiment
from mtl_jax.reports import curves, plots, run_table
from tests import scripts
from tests.full_disk import small_files
from tests.processes import ROOT
from tests.stored_runs import SINGLE, counted_once, write


@pytest.fixture(scope="module", autouse=True)
def _counted_once():
    with counted_once():
        yield


@pytest.fixture
def runs(tmp_path):
    for task, scores in SINGLE.items():
        write(tmp_path / f"single_{task}", (task,), {task: scores})
    for seed, (miou, rmse) in enumerate([(0.44, 0.8), (0.48, 0.72)]):
        several = {"semseg": {"mIoU": miou, "per_class_IoU": [0.3, 0.6]}, "depth": {"rmse": rmse}}
        last = {"semseg": {"mIoU": 0.4}, "depth": {"rmse": 0.8}}
        write(tmp_path / f"mti_{seed}", ("semseg", "depth"), several, seed=seed, step=20 + seed, latest=last)
    write(tmp_path / "pixel", ("semseg", "depth"), {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 0.9}}, protocol="astmt")
    return tmp_path


def test_table(runs):
    tables = run_table.tabulate(run_table.find_runs([runs]))
    assert len(tables) == 2  # of different protocols, never one beside the other
    survey, astmt = (
        next(rows for key, rows in tables.items() if f"depth {depth}" in key) for depth in ("image", "pixel")
    )
    rows = {(row.config.model.name, row.checkpoint, len(row.scores)): row for row in survey}
    best = rows["mti_net", "best", 2]
    assert best.scores == {"semseg": [0.44, 0.48], "depth": [0.8, 0.72]}
    np.testing.assert_allclose(best.gains, [(0.1 + 0) / 2, (0.2 + 0.1) / 2])
    assert rows["mti_net", "latest", 2].gains == [0, 0]
    assert best.parameters > 1e6
    assert best.multiply_adds > 1e9
    assert [row.gains for row in astmt] == [[]]  # its single-task results are of another protocol

    text = run_table.markdown(tables)
    lines = [line for line in text.splitlines() if "best (step 20, 21)" in line]
    assert len(lines) == 1
    assert "| 0.4600 ± 0.0283 | 0.7600 ± 0.0566 | +10.00 ± 7.07 |" in lines[0]
    assert "latest (step 40)" in text
    assert "semseg mIoU ↑ | depth rmse ↓" in text


def test_methods_of_balancing_have_lines_of_their_own(runs):
    head = "| model | backbone | checkpoint |"
    assert head in run_table.markdown(run_table.tabulate(run_table.find_runs([runs])))
    better = {"semseg": {"mIoU": 0.48}, "depth": {"rmse": 0.72}}
    write(runs / "dwa", ("semseg", "depth"), better, balancing="dwa")
    tables = run_table.tabulate(run_table.find_runs([runs]))
    text = run_table.markdown(tables)
    assert head.replace("checkpoint", "balancing | checkpoint") in text
    assert "| mti_net | hrnet_w18 | fixed | best" in text
    (line,) = (line for line in text.splitlines() if "| dwa |" in line)
    assert "| +15.00 |" in line
    assert sorted({row["balancing"] for row in run_table.as_dict(tables)}) == ["dwa", "fixed"]


def test_settings_tell_experiments_apart(runs):
    better = {"semseg": {"mIoU": 0.48}, "depth": {"rmse": 0.72}}
    write(runs / "fast", ("semseg", "depth"), better, lr=0.5)
    tables = run_table.tabulate(run_table.find_runs([runs]))
    rows = next(rows for rows in tables.values() if len(rows) > 1)
    told = {
        str(row.members[0].run.workdir.name): text for row, text in zip(rows, run_table.settings(rows), strict=True)
    }
    assert told["fast"] == "optim.lr=0.5"
    assert told["mti_0"] == "optim.lr=0.0001"
    assert {told[name] for name in told if name not in ("fast", "mti_0", "mti_1")} == {""}
    assert "| mti_net | hrnet_w18 | optim.lr=0.5 | best" in run_table.markdown(tables)
    assert {row["settings"] for row in run_table.as_dict(tables)} >= {"", "optim.lr=0.5"}
    stored = experiment.load_config(runs / "fast")
    stored.data.label_fraction = {"all": 0.5, "depth": 0.1}
    experiment.store_config(stored, runs / "fast")
    tables = run_table.tabulate(run_table.find_runs([runs]))
    fields = "data.label_fraction.all=0.5, data.label_fraction.depth=0.1, optim.lr=0.5"
    told = {row["settings"] for row in run_table.as_dict(tables)}
    assert told >= {fields, "data.label_fraction empty, optim.lr=0.0001"}


def test_a_checkpoint_under_another_protocol_has_its_own_table(runs):
    path = runs / "mti_0" / "results_latest.json"
    content = json.loads(path.read_text())
    content["protocol"]["depth"] = "pixel"
    path.write_text(json.dumps(content))
    tables = run_table.tabulate(run_table.find_runs([runs / "mti_0"]))
    assert [[row.checkpoint for row in rows] for rows in tables.values()] == [["best"], ["latest"]]


def test_undefined_scores(tmp_path):
    for seed, miou in enumerate([float("nan"), 0.5]):
        write(tmp_path / f"run_{seed}", ("semseg",), {"semseg": {"mIoU": miou}}, seed=seed)
    tables = run_table.tabulate(
        run_table.find_runs([tmp_path, tmp_path.resolve() / "run_0"])
    )  # once, though named twice
    assert "| nan |" in run_table.markdown(tables)
    (row,) = next(iter(tables.values()))
    assert len(row.members) == 2


def test_a_run_with_an_undefined_score_has_an_undefined_gain(runs):
    path = runs / "mti_0" / "results.json"
    content = json.loads(path.read_text())
    content["results"]["depth"]["rmse"] = None
    path.write_text(json.dumps(content))
    tables = run_table.tabulate(run_table.find_runs([runs]))
    (row,) = (row for rows in tables.values() for row in rows if row.checkpoint == "best" and len(row.members) == 2)
    np.testing.assert_allclose(row.gains, [np.nan, 0.15])
    assert run_table.as_dict(tables)[0]["workdirs"]
    assert "| nan | nan |" in run_table.markdown(tables)


def test_unlike_single_task_runs_give_no_reference(runs, caplog):
    write(runs / "other", ("depth",), {"depth": {"rmse": 0.7}}, lr=0.5)
    rows = [row for rows in run_table.tabulate(run_table.find_runs([runs])).values() for row in rows]
    assert not any(row.gains for row in rows)
    assert "single-task runs of depth differ by more than their seed" in caplog.text


def test_directories_without_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no evaluated run below .*; run `mtl evaluate --workdir`"):
        run_table.find_runs([tmp_path])


def test_damaged_report(runs):
    (runs / "mti_0" / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"mti_0/results\.json is not a report"):
        run_table.find_runs([runs])


def test_plots(runs, tmp_path):
    write(runs / "mti_0" / "other", ("semseg", "depth"), SINGLE, protocol="invpt")
    shutil.move(runs / "mti_0" / "other" / "results.json", runs / "mti_0" / "results_invpt.json")
    written = plots.draw(run_table.find_runs([runs]), tmp_path / "plots")
    assert [path.name for path in written] == [
        "loss.png",
        "depth_rmse.png",
        "semseg_mIoU.png",
        "nyud_mt_astmt_semseg_IoU.png",
    ]
    assert all(path.stat().st_size > 5000 for path in written)


def test_saved_models_are_no_runs(runs, caplog):
    (runs / "pixel" / "model.safetensors").touch()
    assert "pixel" not in [run.workdir.name for run in run_table.find_runs([runs])]
    assert f"{runs / 'pixel'} is a saved model, no run, and is left out" in caplog.text
    (runs / "pixel" / "checkpoints" / "5").mkdir(parents=True)
    assert "pixel" in [run.workdir.name for run in run_table.find_runs([runs])]


def test_plots_show_the_curves_of_the_page(runs, tmp_path, monkeypatch):
    drawn = []

    def savefig(figure, *args, **options):
        drawn.append([(line.get_label(), list(line.get_ydata())) for line in figure.axes[0].lines])

    monkeypatch.setattr(plots.Figure, "savefig", savefig)
    found = run_table.find_runs([runs])
    plots.draw(found, tmp_path / "plots")
    labels = run_table.short_names(found)
    of_page = [chart for chart in curves.charts(found) if chart.name == "loss/total"]
    expected = {(labels[found[curve.run].workdir], *curve.values) for chart in of_page for curve in chart.curves}
    assert {(label, *values) for label, values in drawn[0]} == expected
    assert expected


def test_bars_have_the_names_of_the_classes(runs, tmp_path, monkeypatch):
    labels = []

    def savefig(figure, *args, **options):
        labels.append([text.get_text() for text in figure.axes[0].get_yticklabels()])

    monkeypatch.setattr(plots.Figure, "savefig", savefig)
    plots.draw(run_table.find_runs([runs / "mti_0"]), tmp_path / "plots")
    assert labels[-1] == ["wall", "floor"]


def test_damaged_lines_of_a_log_are_left_out(runs, caplog):
    path = runs / "pixel" / "log.jsonl"
    content = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*content[:1], b"\xff", b"[]", b'{"step": "x"}', *content[1:]]))
    (run,) = run_table.find_runs([runs / "pixel"])
    assert [(line["kind"], line["step"]) for line in run.log] == [*(("train", i) for i in range(1, 6)), ("eval", 5)]
    assert f"{path}: 3 damaged line(s) (2, 3, 4) cannot be read and are left out" in caplog.text


def test_names_are_neither_markup_nor_formulas_nor_terminal_codes(tmp_path):
    hostile = "@a\x1b[31m\r\n\a\x9b2J\u202e|<b>"
    folder = tmp_path / "runs" / "a\x1b[31m\u202e"
    write(folder, ("depth",), SINGLE, latest=SINGLE)
    (folder / "log.jsonl").write_bytes(b"[]\n")
    path = folder / "results_latest.json"
    content = json.loads(path.read_text())
    content["checkpoint"] = hostile
    content["protocol"][hostile] = hostile
    path.write_text(json.dumps(content))
    out = tmp_path / "report.md"
    done = scripts.run("report", tmp_path / "runs", "--markdown", out, "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert r"/runs/a\x1b[31m\u202e/log.jsonl: 1 damaged line(s)" in done.stderr
    table = out.read_text(encoding="utf-8")
    assert done.stdout == table
    shown = r"@a\\x1b\[31m\\r\\n\\x07\\x9b2J\\u202e\|\<b\>"
    assert f"| \\{shown} (step 40) |" in table
    assert f", {shown} {shown}\n\n" in table
    assert json.loads((tmp_path / "report.json").read_bytes().decode("ascii"))[1]["checkpoint"] == hostile


def test_a_full_disk_leaves_no_half_of_a_plot(runs, tmp_path):
    with small_files(), pytest.raises(OSError, match=r"File too large: '.*plots/loss\.png'"):
        plots.draw(run_table.find_runs([runs / "pixel"]), tmp_path / "plots")
    assert not list((tmp_path / "plots").iterdir())


@pytest.mark.slow
def test_command(runs, tmp_path):
    command = [sys.executable, "scripts/report.py", runs / "mti_0", runs / "mti_1", "--json", tmp_path / "report.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "| mti_net | hrnet_w18 | best (step 20, 21) |" in done.stdout
    content = json.loads((tmp_path / "report.json").read_text())
    assert [entry["checkpoint"] for entry in content] == ["best", "latest"]
    assert content[0]["seeds"] == [0, 1]
    assert content[0]["delta_m"] is None
    assert content[0]["scores"]["depth"]["mean"] == pytest.approx(0.76)
    nothing = subprocess.run([sys.executable, "scripts/report.py"], capture_output=True, text=True, cwd=ROOT)
    assert "the following arguments are required: DIRECTORY" in nothing.stderr
