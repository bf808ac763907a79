"""Multi-task baseline on NYUD: one backbone, a head each for semseg and depth (arXiv 2004.13379, sec. 2.1).

    mtl train nyud_baseline --workdir runs/nyud_baseline
    mtl train nyud_baseline:backbone=resnet50_dilated --workdir runs/nyud_baseline_r50

Options: backbone, release (of the data set, with its augmentation).
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs, Adam with 1e-4 (poly), weight decay 1e-4.
Expected (astmt, image-wise RMSE; reported for the PyTorch code of arXiv 2004.13379): hrnet_w18 33.9 mIoU, 0.610 m
(multi-task performance -0.75 %); resnet50_dilated 39.8 mIoU, 0.573 m. Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="hrnet_w18", release=("astmt", "survey"), aliases={"protocol": "release"})
    return Config(
        data=Data("nyud", ("semseg", "depth"), release=arg.release),
        model=Model("baseline", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
