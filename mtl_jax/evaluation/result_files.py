"""Reports on one checkpoint, or on files: scores, and how they were obtained."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_jax.config import EMA, TRAINED, WEIGHTS, Config, eval_weights
from mtl_jax.evaluation.scoring import Results, can_serve_as_reference, table
from mtl_jax.metrics import delta_m
from mtl_jax.protocol import PROTOCOLS
from mtl_jax.runtime import atomic_files
from mtl_jax.tasks import Criterion

RESULTS = "results.json"
BEST = "best"
SPLIT = "val"

Report = dict[str, Any]  # see `make`


def make(
    results: Results,
    reference: Results | None,
    criteria: Mapping[str, Criterion],
    *,
    checkpoint: str | None,
    step: int | None,
    weights: str | None = None,
    protocol: Mapping[str, str],
) -> Report:
    """Returns a report: scores, multi-task performance where it is defined, and how they were obtained.

    Args:
        results: {task: {metric: value}}.
        reference: Results of single-task models, which the multi-task performance is relative to; None = none.
        criteria: {task: metric that decides}.
        checkpoint: Checkpoint that was asked for, from `checkpoint_name`; None for predictions from files.
        step: Number of the checkpoint's step; None for predictions from files.
        weights: Weights of the checkpoint, "trained" or "ema"; None for predictions from files.
        protocol: Description of the protocol, from `Protocol.describe`.
    """
    gain = None if reference is None else delta_m(results, reference, criteria)
    if gain is not None and not math.isfinite(gain):  # a task without a labelled image
        gain = None
    how = {"checkpoint": checkpoint, "step": step, "weights": weights, "protocol": dict(protocol)}
    return {**how, "results": results, "delta_m": gain, "single_task": reference}


def other_weights(config: Config, weights: str) -> str:
    """Returns the name of weights unless training evaluates them, and an empty text otherwise."""
    return "" if weights == eval_weights(config) else weights


def checkpoint_name(step: str, weights: str = "") -> str:
    """Returns what a report calls a checkpoint: "best" for example, or "best (trained)".

    Args:
        step: Checkpoint that was asked for: "best", "latest" or a number.
        weights: Its weights; empty for those that training evaluates, which the name leaves out.
    """
    return f"{step} ({weights})" if weights else step


def is_of(content: Report, step: int, weights: str) -> bool:
    """Returns True for a report on these weights of a step's checkpoint. An older report is on trained weights."""
    return bool(content["step"] == step and (content.get("weights") or TRAINED) == weights)


def file_name(checkpoint: str = BEST, weights: str = "", protocol: str = "", split: str = SPLIT) -> str:
    """Returns the name of the file with the report on a checkpoint.

    The name is results[_CHECKPOINT][_WEIGHTS][_PROTOCOL][.SPLIT].json.

    Args:
        checkpoint: "best", which the name leaves out, "latest" or a number.
        weights: Weights of the checkpoint; empty for those that training evaluates, which the name leaves out.
        protocol: Key of `PROTOCOLS`; empty for the run's own protocol, which the name leaves out.
        split: Split of the images, "val", which the name leaves out, or another one.
    """
    parts = [part for part in (checkpoint, weights, protocol) if part not in ("", BEST)]
    return f"{'_'.join(('results', *parts))}{ending(split)}"


def ending(split: str, suffix: str = ".json") -> str:
    """Returns how the name of a file about a split ends; "val" is left out."""
    return suffix if split == SPLIT else f".{split}{suffix}"


def find(directories: Iterable[str | Path], split: str = SPLIT) -> list[Path]:
    """Returns the paths of the reports on a split below the directories, each once."""
    protocols = "|".join(map(re.escape, PROTOCOLS))
    names = re.compile(rf"results(_latest|_\d+)?(_({'|'.join(WEIGHTS)}))?(_({protocols}))?{re.escape(ending(split))}")
    paths = {path.resolve() for directory in directories for path in Path(directory).rglob("results*.json")}
    return sorted(path for path in paths if names.fullmatch(path.name))


def write(content: Report, path: Path) -> Path:
    """Writes a report, whole or not at all, and returns its path; undefined scores become null."""
    return atomic_files.write_json(path, content)


def read(path: Path) -> Report:
    """Returns the report that `write` wrote.

    Raises:
        ValueError: The file is not a report; the message names it.
    """
    try:
        content: Report = json.loads(path.read_text(encoding="utf-8"))
        content["results"], content["protocol"], content["step"], content["checkpoint"]
        for name in ("results", "constant", "intervals"):
            if name in content:
                content[name] = _defined(content[name])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a report of `mtl evaluate` ({error!r}); evaluate again") from error
    return content


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _defined(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_defined(item) for item in value]
    return math.nan if value is None else value


def read_single_task(
    directories: Sequence[str | Path],
    criteria: Mapping[str, Criterion],
    protocol: Mapping[str, str],
    split: str = SPLIT,
) -> Results:
    """Returns the results of single-task runs at their best checkpoints, which are looked for below the directories.

    Results of files count only where their directory is given itself, because below a folder of runs they may belong to
    anything.

    Args:
        directories: Work directories, or folders of work directories.
        criteria: {task: metric that decides} for the tasks to look for.
        protocol: Description of the protocol that the results must have been obtained by.
        split: Split of the images.

    Raises:
        FileNotFoundError: A task has no results; the message names the command that makes them.
        ValueError: Results cannot be read, occur twice, were obtained by another protocol, or allow no relative gain;
            the message names the file.
    """
    named = {Path(directory).resolve() for directory in directories}
    chosen: dict[str, Path] = {}
    foreign: dict[str, str] = {}
    results: Results = {}
    for path in find(directories, split):
        content = read(path)
        scores, obtained, checkpoint = content["results"], content["protocol"], content["checkpoint"]
        names = tuple(scores)
        if len(names) != 1 or names[0] not in criteria:
            continue
        if checkpoint != BEST and not (checkpoint is None and path.parent in named):
            continue
        if obtained != dict(protocol):
            foreign[names[0]] = f"{path} was obtained under the protocol {obtained}"
            continue
        if names[0] in chosen:
            raise ValueError(
                f"both {chosen[names[0]]} and {path} are results of {names[0]}; name one with --single_task"
            )
        criterion = criteria[names[0]]
        if criterion.name not in scores[names[0]]:
            raise ValueError(f"{path} has no {criterion.name} of {names[0]}; evaluate the single-task run again")
        if not can_serve_as_reference(scores, {names[0]: criterion}):
            raise ValueError(f"{path}: {criterion.name} is 0 or undefined, so no relative gain exists")
        chosen[names[0]] = path
        results |= scores
    if missing := [task for task in criteria if task not in chosen]:
        if others := [foreign[task] for task in missing if task in foreign]:
            raise ValueError(
                f"{others[0]}, this run under {dict(protocol)}; numbers of different protocols are not comparable. "
                "Evaluate the single-task run again"
            )
        raise FileNotFoundError(
            f"no single-task {RESULTS} for {', '.join(missing)} below {', '.join(map(str, directories))}; train the "
            "single-task models and run `mtl evaluate` on each of their workdirs, or leave out --single_task"
        )
    return {task: results[task] for task in criteria}


def readable(content: Report) -> str:
    """Returns a report as text for people."""
    gain = content["delta_m"]
    if gain is not None:
        comparison = f"multi-task performance relative to single-task models: {100 * gain:+.2f} %"
    elif content["single_task"] is not None:
        comparison = "multi-task performance: not computed, as a task's deciding metric is undefined"
    else:
        comparison = "multi-task performance: not computed, as no single-task results were given (--single_task DIR)"
    protocol = ", ".join(f"{name} {value}" for name, value in content["protocol"].items())
    weights = f", {WEIGHTS[EMA]}" if content.get("weights") == EMA else ""
    step = "predictions from files" if content["step"] is None else f"step {content['step']}"
    text = f"{step}{weights}; protocol: {protocol}\n{table(content['results'])}\n{comparison}"
    for task, intervals in content.get("intervals", {}).items():
        text += f"\n95 % intervals of {task}: "
        text += ", ".join(f"{name} {low:.4f} to {high:.4f}" for name, (low, high) in intervals.items())
    if "constant" in content:
        text += f"\nbest constant prediction:\n{table(content['constant'])}"
    return text
