"""The charts of a report, from logs."""

from pathlib import Path

import numpy as np

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Model
from mtl_jax.reports import curves
from mtl_jax.reports.run_table import EvaluatedRun


def run(tasks=("semseg", "depth"), builder="rendered_scenes/nyud_tiny", log=()):
    config = Config(Data("nyud", tasks, builder=builder), Model("baseline"))
    return EvaluatedRun(Path("runs/a"), experiment.make(config), [], list(log))


def test_quantities_are_grouped_and_those_that_decide_come_first():
    log = [
        {"step": 5, "kind": "train", "loss/total": 2.0, "loss/scale_0_depth": 1.0, "learning_rate": 0.1},
        {"step": 9, "kind": "train", "loss/total": 1.0},
        {"step": 9, "kind": "eval", "depth/abs_rel": 0.2, "depth/rmse": 0.5},
    ]
    charts = curves.charts([run(log=log)])
    assert [(chart.group, chart.name, chart.decides) for chart in charts] == [
        ("losses", "loss/total", True),
        ("losses", "loss/scale_0_depth", False),
        ("progress", "learning_rate", False),
        ("scores", "depth/rmse", True),
        ("scores", "depth/abs_rel", False),
    ]
    assert charts[0].curves == [curves.Curve(0, [5, 9], [2.0, 1.0])]
    assert "data rendered_scenes/nyud_tiny" in charts[0].conditions
    assert "validation images at network resolution" in charts[3].conditions
    assert "depth image" in charts[3].conditions


def test_runs_share_a_chart_where_they_are_comparable():
    log = [{"step": 1, "kind": "eval", "depth/rmse": 0.5}]
    other = run(builder="rendered_scenes/nyud", log=log)
    charts = curves.charts([run(log=log), run(log=log), other])
    assert [[curve.run for curve in chart.curves] for chart in charts] in ([[0, 1], [2]], [[2], [0, 1]])


def test_thinned_curves_keep_their_ends_and_peaks():
    steps, values = list(range(10_000)), np.sin(np.arange(10_000) / 300)
    values[4321], values[5000] = 9.0, -9.0
    kept_steps, kept = curves.thinned(steps, list(values), most=100)
    assert len(kept_steps) <= 100
    assert kept_steps == sorted(set(kept_steps))
    assert (kept_steps[0], kept_steps[-1]) == (0, 9999)
    assert kept[kept_steps.index(4321)] == 9.0
    assert kept[kept_steps.index(5000)] == -9.0
    np.testing.assert_allclose(kept, values[kept_steps], rtol=1e-5)


def test_short_curves_stay_whole_with_six_digits():
    assert curves.thinned([1, 2, 3], [0.123456789, 1e-9, 3.0]) == ([1, 2, 3], [0.123457, 1e-9, 3.0])
