r"""Single-task models on NYUD, which multi-task models are compared with.

    mtl train nyud_single:task=semseg --workdir runs/nyud_single_hrnet_w18_semseg
    mtl train nyud_single:task=depth,backbone=resnet50_dilated \
        --workdir runs/nyud_single_resnet50_dilated_depth

Options: task (semseg and depth are the published experiments), backbone, release (of the data set, with its
augmentation).
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs, Adam with 1e-4 (poly), weight decay 1e-4.
Expected (astmt, image-wise RMSE; reported for the PyTorch code of arXiv 2004.13379): hrnet_w18 34.5 mIoU, 0.610 m;
resnet50_dilated 40.1 mIoU, 0.571 m. Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(
        arg,
        task=("semseg", "depth", "normals", "edge"),
        backbone="hrnet_w18",
        release=("astmt", "survey"),
        aliases={"protocol": "release"},
    )
    return Config(
        data=Data("nyud", (arg.task,), release=arg.release),
        model=Model("single_task", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
