"""The input pipeline against the plain PyTorch one (`reference/input.py`): original files to batches, equal draws.

The data sets are rendered scenes in the original file formats; nothing is shared but those files and OpenCV.
"""

import numpy as np
import pytest
import torch

from mtl_jax.data import augmentation, catalogue, datasets
from mtl_jax.data.augmentation.geometry import Turn
from mtl_jax.data.rendered import release_files
from parity.reference import input as reference
from tests.marks import slow

IDS = {"train": [f"{i:04d}" for i in range(4)], "val": ["0100"]}
DRAWS = [(False, 0.0, 1.0), (True, 0.0, 1.2), (False, 13.7, 0.83), (True, -20.0, 1.25)]
SURVEY_DRAWS = [(flip, 0.0, scale) for flip, scale in ((False, 1.0), (True, 1.2), (False, 1.5), (True, 1.0))]
# Normals: see NORMALS_ATOL of test_transforms.py. The image is the same but for two roundings of its normalisation.
ATOL = {"normals": 1e-5, "image": 1e-6}


def written(case, folder):
    if case == "pascal":
        return release_files.write_pascal(folder, IDS, height=60, width=80)
    return release_files.write_nyud(folder, case, IDS, height=48, width=64)


CASES = {
    "astmt": ("nyud_mt/astmt_subset", "nyud", reference.nyud_astmt, DRAWS),
    "survey": ("nyud_mt/survey_subset", "nyud", reference.nyud_survey, SURVEY_DRAWS),
    "pascal": ("pascal_mt/context_subset", "pascal", reference.pascal, DRAWS),
}


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("size", [(48, 64), slow((64, 64))])
@pytest.mark.parametrize("case", CASES)
def test_samples(case, size, decoded, tmp_path):
    name, family, read, draws = CASES[case]
    root = written(case, tmp_path)
    source = datasets.open_split(datasets.prepare(name, tmp_path / "tfds", root), "train")
    if decoded:
        reference.store_decoded(read, root, IDS["train"], tmp_path / "decoded")
        read, root = reference.decoded, tmp_path / "decoded"
    theirs = reference.Files(read, root, IDS["train"], size, survey=case == "survey")
    recipe = "survey" if case == "survey" else "astmt"
    tasks = catalogue.get(family).tasks
    for i, draw in enumerate(draws):
        conventions = catalogue.get(family).conventions
        sample = source.sample(i, tasks, conventions)
        got = augmentation.train_transform(
            sample, (draw[0], Turn(*draw[1:]), None), recipe, size, conventions=conventions
        )
        want = theirs[reference.Item(i, *draw)]
        for key, value in want.items():
            assert value.dtype == torch.float32
            if key == "human_parts" and key not in got:
                assert (value == 255).all()
                continue
            np.testing.assert_allclose(
                got[key], value.numpy().transpose(1, 2, 0), rtol=0, atol=ATOL.get(key, 0), err_msg=f"{key} of {i}"
            )
