"""Trains one small model with every balancing method and compares the multi-task performance.

    python scripts/study_balancing.py --workdir runs/balancing
    python scripts/study_balancing.py --workdir runs/balancing --methods dwa,cagrad:c=0.5 --seeds 0,1,2,3,4

The data are the embedded PASCAL-like pictures of 96x96, cut to 64x64, with five tasks. The model is a narrow ResNet-18
with a head for each task, trained from scratch for the same number of steps with every method. Fixed weights are tuned
first, by runs with a seed of their own: from the better of equal weights and the task table's, each weight is made
three times as large, and a third as large. Each run takes one core, and --jobs runs go on at a time. Scored runs are
kept, so that the same command continues after an interruption. Prints a table and writes WORKDIR/study.json.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # of benchmarks and parity, which no installed package holds

from benchmarks import study
from mtl_jax import balancing, cli
from mtl_jax.config import PLAIN_BALANCING
from mtl_jax.data import datasets
from mtl_jax.runtime import atomic_files


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--workdir", required=True, help="folder that receives the runs")
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=list(study.METHODS),
        metavar="A,B,...",
        help="balancing methods to compare, beside equal and tuned weights",
    )
    parser.add_argument(
        "--seeds",
        type=lambda text: [int(seed) for seed in text.split(",")],
        default=[0, 1, 2],
        metavar="A,B,...",
        help="seeds of the runs that are compared; 0,1,2 by default",
    )
    parser.add_argument(
        "--epochs",
        type=cli.at_least(1),
        default=4,
        metavar="N",
        help="passes over the 400 images, 100 steps each; 4 by default",
    )
    parser.add_argument(
        "--jobs", type=cli.at_least(1), default=2, metavar="N", help="number of runs at a time; 2 by default"
    )
    parser.add_argument("--data_dir", default="data", metavar="DIR", help="folder of the built pictures")


def run(arguments: argparse.Namespace) -> None:
    root, seeds = Path(arguments.workdir), arguments.seeds
    methods = {study.EQUAL: study.weights([1.0] * len(study.TASKS))}
    for method in arguments.methods:
        if method != PLAIN_BALANCING:
            balancing.parse(method)
        methods[method.replace(":", "_")] = method
    datasets.prepare(study.BUILDER, Path(arguments.data_dir), None)  # by this process, before the others read it
    single = study.singles(seeds)
    _train(single, root, arguments)
    results = study.Study(root, single)
    tuning: dict[str, float] = {}
    best = _best(results, study.STARTS, tuning, arguments)
    best = _best(results, [best, *study.variations(best)], tuning, arguments)
    methods[study.tuned(best)] = study.weights(best)
    _train(study.balanced(methods, seeds), root, arguments)
    rows = [results.row(study.balanced({name: method}, seeds)) for name, method in methods.items()]
    rows.sort(key=lambda row: row.gain, reverse=True)
    cli.show(f"\n{results.table(rows)}")
    atomic_files.write_json(
        root / "study.json",
        {
            "epochs": arguments.epochs,
            "seeds": seeds,
            "methods": methods,
            "single": results.reference,
            "tuning": tuning,
            "rows": {row.name: {"scores": row.scores, "gains": row.gains, "diverged": row.diverged} for row in rows},
        },
    )


def _best(
    results: study.Study,
    candidates: Sequence[tuple[float, ...]],
    tuning: dict[str, float],
    arguments: argparse.Namespace,
) -> tuple[float, ...]:
    """Returns the fixed weights with the greatest multi-task performance; adds that of all candidates to `tuning`."""
    runs = study.tuning(candidates)
    _train(runs, results.root, arguments)
    gains = [results.row([run]).gain for run in runs]
    tuning.update({run.balancing: gain for run, gain in zip(runs, gains, strict=True)})
    return candidates[gains.index(max(gains))]


def _train(runs: Sequence[study.Run], root: Path, arguments: argparse.Namespace) -> None:
    options = (root, arguments.epochs, arguments.data_dir)
    missing = study.unscored(runs, *options)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn"), study.init_process) as processes:
        jobs = [processes.submit(study.train, run, *options) for run in missing]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), unit="run"):
                job.result()
        except BaseException:
            processes.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    cli.run(sys.modules[__name__], "scripts/study_balancing.py")
