r"""Scores predicted boundaries: odsF, oisF and AP, as the Berkeley benchmark and its MATLAB packages do.

    mtl edges --predictions runs/a/predictions/edge --ground_truth PASCAL_MT/pascal-context/trainval \
        --ids pascal_context
    mtl edges --predictions DIR --ground_truth NYUD_MT/edge --protocol nms --max_dist 0.011

The predictions of any tool can be scored. They are grey PNGs of 8 bits, ID.png. The ground truth is ID.png, a map of
classes or of edges, or ID.mat of PASCAL-Context (`LabelMap`) or BSDS500 (`groundTruth`). Writes edge_scores.json, and
counts.jsonl image by image, from which the same command continues after an interruption.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from mtl_jax import boundaries, cli
from mtl_jax.boundaries.truth import KINDS
from mtl_jax.runtime import atomic_files


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument("--predictions", required=True, metavar="DIR", help="folder with ID.png")
    parser.add_argument("--ground_truth", required=True, metavar="DIR", help="folder with ID.png or ID.mat")
    parser.add_argument(
        "--protocol",
        choices=list(boundaries.PROTOCOLS),
        default="plain",
        help="boundary protocol, which sets thresholds and non-maximum suppression; plain by default",
    )
    parser.add_argument(
        "--max_dist",
        type=float,
        metavar="FRACTION",
        help="distance up to which boundaries match, as a fraction of the diagonal; by default the protocol's own",
    )
    parser.add_argument(
        "--kind",
        choices=list(KINDS),
        default="labels",
        help="content of PNG ground truth: labels = regions, or edges of NYUD (default); boundaries = thin boundaries",
    )
    parser.add_argument(
        "--ids",
        metavar="FILE",
        help="file with one id a line, or pascal_context for its 2498 scored images; by default all images with ground "
        "truth",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the results; by default NAME_scores beside the folder NAME of the predictions",
    )
    parser.add_argument(
        "--num_workers", type=cli.at_least(0), metavar="N", help="number of processes; by default one for each core"
    )


def run(arguments: argparse.Namespace) -> None:
    predictions = Path(arguments.predictions)
    out = Path(arguments.out) if arguments.out else predictions.with_name(f"{predictions.name}_scores")
    protocol = boundaries.get(arguments.protocol, arguments.max_dist)
    images = boundaries.find_images(predictions, Path(arguments.ground_truth), _ids(arguments.ids), arguments.kind)
    counts = boundaries.count_images(images, protocol, store=out / "counts.jsonl", num_workers=arguments.num_workers)
    scores = boundaries.score(counts, protocol)
    content = {
        "protocol": {"name": protocol.name, "max_dist": protocol.max_dist, "images": len(images)},
        "scores": asdict(scores),
    }
    path = out / "edge_scores.json"
    atomic_files.write_json(path, content)
    cli.show(f"{len(images)} images, protocol {protocol.name}, maxDist {protocol.max_dist:g}; {path}")
    cli.show(
        f"odsF {scores.odsF:.4f} (threshold {scores.ods_threshold:g}, recall {scores.ods_recall:.4f}, precision "
        f"{scores.ods_precision:.4f})  oisF {scores.oisF:.4f}  AP {scores.AP:.4f}"
    )


def _ids(name: str | None) -> list[str] | None:
    if name is None:
        return None
    if name == "pascal_context":
        return boundaries.pascal_context_ids()
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"--ids is {path}, which is neither a file nor pascal_context")
    return path.read_text(encoding="utf-8").split()
