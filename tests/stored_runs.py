"""Work directories as training and evaluation leave them, without either."""

import contextlib
import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from mtl_jax import experiment
from mtl_jax.config import Config, Data, Model
from mtl_jax.evaluation import result_files
from mtl_jax.reports import cost, run_table

SINGLE = {"semseg": {"mIoU": 0.4, "per_class_IoU": [0.2, 0.6]}, "depth": {"rmse": 0.8}}


def write(
    folder, tasks, results, *, seed=0, step=30, protocol="survey", latest=None, model=None, lr=1e-4, balancing="fixed"
):
    """A work directory as training and evaluation leave it."""
    config = Config(Data("nyud", tasks), Model(model or ("single_task" if len(tasks) == 1 else "mti_net")))
    config.train.seed, config.train.eval_protocol, config.optim.lr = seed, protocol, lr
    config.balancing = balancing
    run = experiment.make(config)
    experiment.store_config(run.config, folder)
    rules, criteria = run.protocol_description, run.final_criteria
    for checkpoint, at, scores in (("best", step, results), ("latest", 40, latest)):
        if scores:
            content = result_files.make(scores, None, criteria, checkpoint=checkpoint, step=at, protocol=rules)
            result_files.write(content, folder / result_files.file_name(checkpoint))
    lines = [{"step": i, "kind": "train", "loss/total": 3.0 / i} for i in range(1, 6)]
    lines += [{"step": 5, "kind": "eval", **{f"{task}/{c.name}": 0.5 for task, c in criteria.items()}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "ki')


@contextlib.contextmanager
def counted_once() -> Iterator[None]:
    """Keeps the costs of models inside of the `with` block: counting traces a whole model, and the tests have few."""
    known = {}

    def summarize(config):
        key = repr((config.model, config.data))
        if key not in known:
            known[key] = cost.summarize(config)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_table, "cost", SimpleNamespace(summarize=summarize))
        yield
