"""Formats of folders with predicted maps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mtl_jax.inference.maps import Map


@dataclass(frozen=True)
class Format:
    """A way to write maps to files.

    Attributes:
        files: Function from a map to {suffix: content} of its files.
        describe: Function from a map to {suffix: what the values in such a file mean}.
    """

    files: Callable[[Map], Mapping[str, bytes]]
    describe: Callable[[Map], Mapping[str, str]]


def _own_files(one: Map) -> Mapping[str, bytes]:
    return one.kind.map_files(one.decided, one.num_classes)


def _own_meaning(one: Map) -> Mapping[str, str]:
    return one.kind.describe_map_files(one.conventions)


def _reference_files(one: Map) -> Mapping[str, bytes]:
    return {one.kind.suffix: one.kind.encode_prediction(one.prediction, one.task)}


def _reference_meaning(one: Map) -> Mapping[str, str]:
    return {one.kind.suffix: one.kind.meaning(one.conventions)}


# "default" is for people and other tools; "reference" has the files of the published PyTorch code, which
# `mtl_jax.inference.evaluate.evaluate_files` scores.
MAP_FORMATS: Mapping[str, Format] = {
    "default": Format(_own_files, _own_meaning),
    "reference": Format(_reference_files, _reference_meaning),
}
