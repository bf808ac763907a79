"""Which score ranks the checkpoints, and what a checkpoint keeps of the scores before it."""

import pytest

from mtl_jax import experiment, metrics, tasks
from mtl_jax.config import Config, Data, Train
from mtl_jax.tasks import Criterion
from mtl_jax.train import ranking
from mtl_jax.train.checkpoint_parts import Evaluation


def run(best="", names=("semseg", "depth", "edge")):
    return experiment.make(Config(Data("nyud", names), train=Train(best=best)))


def test_the_scores_that_may_rank():
    scores = ranking.rankable(run())
    assert scores["semseg"]["mean_accuracy"] == Criterion("mean_accuracy", higher_is_better=True)
    assert scores["depth"]["abs_rel"] == Criterion("abs_rel", higher_is_better=False)
    assert scores["depth"]["delta1"] == Criterion("delta1", higher_is_better=True)
    assert list(scores["edge"]) == ["loss"]  # odsF takes too long while training


def test_the_deciding_score_need_not_be_declared(monkeypatch):
    """A metric from outside of the package declares no directions."""
    monkeypatch.setattr(metrics.Depth, "higher_is_better", {})
    assert ranking.rankable(run())["depth"] == {"rmse": Criterion("rmse", higher_is_better=False)}


@pytest.mark.parametrize("name", tasks.TASKS)
def test_built_in_metrics_declare_all_their_scores(name):
    task = tasks.get(name)
    metric = metrics.build(task.metric, num_classes=3)
    computed = metrics.Accumulator(metric).compute()
    assert set(metric.higher_is_better) == {score for score, value in computed.items() if isinstance(value, float)}
    for criterion in filter(None, (task.streaming_criterion, task.criterion)):
        if criterion.name in computed:  # odsF is computed elsewhere
            assert metric.higher_is_better[criterion.name] == criterion.higher_is_better


def test_one_score_ranks():
    chosen = run("depth/abs_rel")
    deciding = ranking.ranked(chosen, chosen.streaming_criteria)
    assert deciding == {"depth": Criterion("abs_rel", higher_is_better=False)}
    assert ranking.ranked(run(), {"semseg": "as it is"}) == {"semseg": "as it is"}


@pytest.mark.parametrize("best", ["semseg/miou", "semseg", "mIoU", "edge/odsF", "normals/mean"])
def test_a_score_that_evaluations_lack(best):
    with pytest.raises(ValueError, match=f"train.best is '{best}'; evaluations .* have the scores semseg/mIoU, ") as e:
        ranking.chosen(run(best))
    assert "edge/loss" in str(e.value)
    assert "Did you mean semseg/mIoU" in str(e.value) or not best.startswith("semseg")


def test_a_task_without_labels_cannot_rank():
    chosen = run("semseg/mIoU")
    with pytest.raises(ValueError, match=r"train.best is 'semseg/mIoU', and no validation image has a label of semseg"):
        ranking.ranked(chosen, {"depth": chosen.streaming_criteria["depth"]})


def test_without_any_score_there_is_nothing_to_wait_for():
    waiting = experiment.make(Config(Data("nyud", ("semseg", "depth")), train=Train(patience=3)))
    with pytest.raises(ValueError, match=r"patience is 3, and no validation image has a label of semseg, depth, so"):
        ranking.ranked(waiting, {})
    assert ranking.ranked(run(), {}) == {}
    assert ranking.ranked(waiting, {"depth": "as it is"})


def test_results_of_single_tasks_rank_nothing_beside_a_score():
    with pytest.raises(ValueError, match=r"leave out --single_task, or leave train.best empty"):
        ranking.choose_reference(None, {"depth": {"rmse": 1.0}}, "semseg/mIoU")


def test_a_checkpoint_keeps_the_scores_before_it():
    scores = [(2, 0.5), (4, None)]
    progress = {"step": 6} | ranking.progress_of_scores(scores, "depth/rmse")
    assert list(ranking.stored_scores(progress, None, "depth/rmse")) == scores
    assert list(ranking.stored_scores(progress, Evaluation(0.7), "depth/rmse")) == [*scores, (6, 0.7)]


@pytest.mark.parametrize(
    ("progress", "evaluation"),
    [
        ({"step": 6, "scores": [[4, 0.5]], "ranked_by": ""}, None),
        ({"step": 6, "scores": [], "ranked_by": ""}, Evaluation(0.5)),
        ({"step": 6}, None),  # of an older version, which may have evaluated earlier steps
    ],
)
def test_scores_of_another_kind_are_not_compared(progress, evaluation):
    with pytest.raises(ValueError, match=r"ranked its checkpoints with train.best='', and train.best is 'depth/rmse'"):
        ranking.stored_scores(progress, evaluation, "depth/rmse")
    ranking.stored_scores(progress, evaluation, "")


@pytest.mark.parametrize(
    "progress", [{"step": 0, "input": None}, {"step": 6, "scores": [], "ranked_by": "semseg/mIoU"}]
)
def test_a_run_without_evaluations_may_be_ranked_by_another_score(progress):
    assert list(ranking.stored_scores(progress, None, "depth/rmse")) == []


@pytest.mark.parametrize(
    ("scores", "number"),
    [
        ([], 0),
        ([0.5], 0),
        ([0.5, 0.4, 0.3], 2),
        ([0.5, 0.5, 0.5], 2),  # as good is not better
        ([0.3, 0.5, None, 0.4], 2),
        ([None, None], 0),
        ([None, -1.0], 0),
    ],
)
def test_evaluations_since_the_best_one(scores, number):
    assert ranking.evaluations_since_best(list(enumerate(scores))) == number
