"""Scores predicted boundaries: odsF, oisF and AP, as the Berkeley benchmark and its MATLAB packages do.

    python scripts/edges.py --predictions runs/a/predictions/edge --ground_truth PASCAL_MT/pascal-context/trainval \
        --ids pascal_context
    python scripts/edges.py --predictions DIR --ground_truth NYUD_MT/edge --protocol nms --max_dist 0.011

The predictions of any tool can be scored. They are grey PNGs of 8 bits, ID.png. The ground truth is ID.png, a map of
classes or of edges, or ID.mat of PASCAL-Context (`LabelMap`) or BSDS500 (`groundTruth`). Writes edge_scores.json, and
counts.jsonl image by image, from which the same command continues after an interruption.
"""

from dataclasses import asdict
from pathlib import Path

from absl import flags

from mtl_jax import boundaries, cli
from mtl_jax.boundaries.truth import KINDS
from mtl_jax.runtime import atomic_files

_PREDICTIONS = flags.DEFINE_string("predictions", None, "folder with ID.png", required=True)
_TRUTH = flags.DEFINE_string("ground_truth", None, "folder with ID.png or ID.mat", required=True)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "plain", list(boundaries.PROTOCOLS), "boundary protocol: thresholds and non-maximum suppression"
)
_MAX_DIST = flags.DEFINE_float(
    "max_dist",
    None,
    "distance up to which boundaries match, as a fraction of the diagonal; by default the protocol's own",
)
_KIND = flags.DEFINE_enum(
    "kind",
    "labels",
    list(KINDS),
    "content of PNG ground truth: labels = regions (or edges, NYUD), boundaries = thin boundaries",
)
_IDS = flags.DEFINE_string(
    "ids",
    None,
    "file with one id a line, or pascal_context for its 2498 scored images; by default all images with ground truth",
)
_OUT = flags.DEFINE_string(
    "out", None, "folder for the results; by default NAME_scores beside the folder NAME of the predictions"
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "number of processes; by default one for each core", lower_bound=0
)


def main() -> None:
    predictions = Path(_PREDICTIONS.value)
    out = Path(_OUT.value) if _OUT.value else predictions.with_name(f"{predictions.name}_scores")
    protocol = boundaries.get(_PROTOCOL.value, _MAX_DIST.value)
    images = boundaries.find_images(predictions, Path(_TRUTH.value), _ids(), _KIND.value)
    counts = boundaries.count_images(images, protocol, store=out / "counts.jsonl", num_workers=_NUM_WORKERS.value)
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


def _ids() -> list[str] | None:
    if _IDS.value is None:
        return None
    if _IDS.value == "pascal_context":
        return boundaries.pascal_context_ids()
    path = Path(_IDS.value)
    if not path.is_file():
        raise FileNotFoundError(f"--ids is {path}, which is neither a file nor pascal_context")
    return path.read_text(encoding="utf-8").split()


if __name__ == "__main__":
    cli.run(main)
