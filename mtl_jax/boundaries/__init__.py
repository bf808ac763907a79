"""Boundary evaluation as in the Berkeley benchmark: odsF, oisF and AP, without MATLAB.

`count_images` compares predicted with true boundaries, and `score` computes the scores from the counts:

    images = boundaries.find_images(Path("predictions/edge"), Path("LabelMap"))
    protocol = boundaries.get("plain")
    print(boundaries.score(boundaries.count_images(images, protocol), protocol).odsF)

Sources: Martin, Fowlkes and Malik (TPAMI 26, 2004) for matching boundaries; Arbelaez, Maire, Fowlkes and Malik (TPAMI
33, 2011) for the scores; Hopcroft and Karp (SIAM J. Comput. 2, 1973) for largest matchings.
"""

from mtl_jax.boundaries.counting import Image, count_images, find_images, pascal_context_ids
from mtl_jax.boundaries.counts import BoundaryCounts, count
from mtl_jax.boundaries.labels import label_boundary
from mtl_jax.boundaries.protocols import PROTOCOLS, BoundaryProtocol, get
from mtl_jax.boundaries.scores import Scores, image_scores, score
from mtl_jax.boundaries.suppression import suppress
from mtl_jax.boundaries.thinning import thin
from mtl_jax.boundaries.truth import read_truth
from mtl_jax.boundaries.warm_up import compile_loops

__all__ = [
    "PROTOCOLS",
    "BoundaryCounts",
    "BoundaryProtocol",
    "Image",
    "Scores",
    "compile_loops",
    "count",
    "count_images",
    "find_images",
    "get",
    "image_scores",
    "label_boundary",
    "pascal_context_ids",
    "read_truth",
    "score",
    "suppress",
    "thin",
]
