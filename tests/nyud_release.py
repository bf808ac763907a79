"""NYUD in the layouts of both releases, made up."""

import io

import cv2
import numpy as np
import scipy.io

from mtl_jax.data import datasets

H, W = 48, 64
IDS = {"train": ["0003", "0001", "0002"], "val": ["0010", "0011"]}


def frame(seed):
    """image, semseg (raw ids), depth, normals (unit), edge (0/1)"""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(H, W, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    return {
        "image": cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (W, H)),
        "semseg": rng.integers(0, 41, (H, W), dtype=np.uint8),
        "depth": rng.uniform(0, 9, (H, W)).astype(np.float32),
        "normals": normals,
        "edge": rng.integers(0, 2, (H, W), dtype=np.uint8),
    }


def encode(suffix, x):
    success, data = cv2.imencode(suffix, x[..., ::-1] if x.ndim == 3 else x)
    assert success
    return data.tobytes()


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def npy(x):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def files_of(release, x):
    """{folder with suffix: bytes}"""
    files = {"images.jpg": encode(".jpg", x["image"])}
    if release == "astmt":
        coded = np.clip(np.rint((x["normals"] + 1) * 127.5), 0, 255).astype(np.uint8)
        return files | {
            "segmentation.mat": mat(segmentation=x["semseg"]),
            "depth.mat": mat(depth=x["depth"]),
            "normals.jpg": encode(".jpg", coded),
            "edge.png": encode(".png", x["edge"] * 255),
        }
    return files | {
        "segmentation.png": encode(".png", x["semseg"]),
        "depth.npy": npy(x["depth"]),
        "normals.npy": npy(x["normals"]),
        "edge.npy": npy(x["edge"].astype(np.float32)),
    }


def write(root, release, ids=IDS, frames=frame):
    """Writes NYUD_MT below `root` and returns that folder."""
    folder = root / "NYUD_MT"
    (folder / "gt_sets").mkdir(parents=True)
    for split, names in ids.items():
        (folder / "gt_sets" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            for key, data in files_of(release, frames(int(name))).items():
                kind, suffix = key.split(".")
                path = folder / kind / f"{name}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
    return folder


def build(release, data_dir, manual_dir):
    return datasets.prepare(f"nyud_mt/{release}_subset", data_dir, manual_dir)
