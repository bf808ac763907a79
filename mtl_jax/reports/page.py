"""A report on runs as one HTML file, which needs neither a network nor other files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import mtl_jax
from mtl_jax.config import PLAIN_BALANCING
from mtl_jax.evaluation import result_files
from mtl_jax.reports import class_scores, curves, gallery, run_table
from mtl_jax.reports.data_uris import DataUris
from mtl_jax.reports.run_table import EvaluatedRun
from mtl_jax.runtime import atomic_files, messages

_ASSETS = "assets"
_STYLES = ("uPlot.min.css", "report.css")
_SCRIPTS = ("uPlot.iife.min.js", "elements.js", "tables.js", "charts.js", "classes.js", "gallery.js", "report.js")
# Inside of a script element these characters could end it, or begin another element.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


@dataclass(frozen=True)
class Options:
    """Options of a page.

    Attributes:
        gallery: Number of images in the gallery of a run; 0 = no galleries, and no checkpoint is read.
        scored: Number of validation images that are scored to choose those of a gallery, evenly spaced over the split;
            0 = all.
        pictures_bytes: Size of all pictures from which on galleries have fewer images than asked for.
    """

    gallery: int = 12
    scored: int = 100
    pictures_bytes: int = 4_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise ValueError(f"{name} of the page is {value}, expected 0 or more")


def write(runs: Sequence[EvaluatedRun], path: str | Path, options: Options | None = None) -> Path:
    """Writes the page: tables, curves, the IoU of classes, and a gallery of each experiment.

    The gallery of an experiment is that of its first run, whatever the number of seeds, at the best checkpoint. Where
    the checkpoint or the data are missing, the page says so in the place of the gallery.

    Args:
        runs: The runs, from `run_table.find_runs`.
        path: The HTML file. Missing folders are created.
        options: Options of the page.

    Returns:
        The path of the file.
    """
    pictures = DataUris()
    data = content(runs, pictures, options or Options())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return atomic_files.write(path, render(data, pictures))


def render(data: Mapping[str, Any], pictures: DataUris) -> str:
    """Returns the page as text.

    All texts of the data are shown as text, whatever they contain.

    Args:
        data: Result of `content`.
        pictures: The pictures that the data refer to.
    """
    template = Template(_asset("report.html"))
    return template.substitute(
        style="\n".join(map(_asset, _STYLES)),
        script="\n".join(map(_asset, _SCRIPTS)),
        data=_embedded(_printable(data)),
        pictures=_embedded(pictures.uris),
    )


def content(runs: Sequence[EvaluatedRun], pictures: DataUris, options: Options) -> dict[str, Any]:
    """Returns everything that the page shows, ready for JSON.

    Args:
        runs: The runs.
        pictures: Receives the pictures of the galleries.
        options: Options of the page.
    """
    names = run_table.short_names(runs)
    numbers = {run.workdir: number for number, run in enumerate(runs)}
    return {
        "version": mtl_jax.__version__,
        "runs": [_run(run, names[run.workdir]) for run in runs],
        "tables": [_table(rows, numbers) for rows in run_table.tabulate(runs).values()],
        "charts": [asdict(chart) for chart in curves.charts(runs)],
        "classes": [_classes(scores, numbers) for scores in class_scores.grouped(runs).values()],
        "galleries": _galleries(runs, pictures, options) if options.gallery else [],
    }


def _run(run: EvaluatedRun, name: str) -> dict[str, Any]:
    config = run.config
    balancing = [f"balancing {config.balancing}"] if config.balancing != PLAIN_BALANCING else []
    parts = [config.model.name, config.model.backbone, *balancing, f"seed {config.train.seed}"]
    return {"name": name, "workdir": str(run.workdir), "description": ", ".join(parts)}


def _table(rows: Sequence[run_table.Row], numbers: Mapping[Path, int]) -> dict[str, Any]:
    filled = []
    for row, values in zip(rows, run_table.as_dict({"": rows}), strict=True):
        own = {name: value for name, value in values.items() if name not in ("protocol", "workdirs")}
        filled.append(own | {"runs": [numbers[member.run.workdir] for member in row.members]})
    columns = [
        {"task": task, "metric": criterion.name, "higher_is_better": criterion.higher_is_better}
        for task, criterion in run_table.columns(rows)
    ]
    first = rows[0].members[0]
    return {"protocol": first.protocol, "data": first.report["protocol"]["data"], "columns": columns, "rows": filled}


def _classes(scores: Sequence[class_scores.ClassScores], numbers: Mapping[Path, int]) -> dict[str, Any]:
    first = max(scores, key=lambda each: len(each.names))
    bars = [
        {"run": numbers[each.run.workdir], "step": each.step, "protocol": each.protocol, "values": each.values}
        for each in scores
    ]
    return {"task": first.task, "data": first.run.experiment.builder_name, "names": first.names, "bars": bars}


def _galleries(runs: Sequence[EvaluatedRun], pictures: DataUris, options: Options) -> list[dict[str, Any]]:
    """Returns a gallery for the first run of each experiment, or the reason why there is none."""
    firsts: dict[tuple[Any, ...], int] = {}
    for number, run in enumerate(runs):
        firsts.setdefault(run.identity, number)
    galleries = []
    for place, number in enumerate(firsts.values(), start=1):
        run = runs[number]
        protocol = ", ".join(f"{name} {value}" for name, value in run.experiment.protocol_description.items())
        entry: dict[str, Any] = {"run": number, "protocol": protocol, "split": result_files.SPLIT, "problem": ""}
        limit = options.pictures_bytes * place // len(firsts)  # each gallery has its share, and what others left
        try:
            entry |= asdict(gallery.build(run, options.gallery, options.scored, pictures, limit))
        except (OSError, ValueError) as error:
            entry["problem"] = messages.explain(error)
        galleries.append(entry)
    return galleries


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(_ASSETS, name).read_text(encoding="utf-8")


def _embedded(value: Any) -> str:
    """Returns JSON for the inside of a script element, where no text can end the element."""
    return atomic_files.json_text(value).translate(_ESCAPES)


def _printable(value: Any) -> Any:
    """Returns a value with all its texts made `messages.printable`."""
    if isinstance(value, str):
        return messages.printable(value)
    if isinstance(value, Mapping):
        return {messages.printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
