"""Multi-task baseline on PASCAL-Context: one backbone, a head for each of five tasks (arXiv 2004.13379, sec. 2.1).

    mtl train pascal_baseline --workdir runs/pascal_baseline
    mtl train pascal_baseline:tasks=small --workdir runs/pascal_baseline_small
    mtl train pascal_baseline:backbone=resnet18_dilated --workdir runs/pascal_base_r18

Options: tasks (small: semseg, human_parts and sal), backbone.
Recipe: ImageNet weights, batch 8 (ResNets, Swin Transformers, ConvNeXts: 6), 100 epochs (small: 80), Adam with 1e-4
(poly), weight decay 1e-4.
Expected of hrnet_w18 on all tasks (reported for the PyTorch code of arXiv 2004.13379): semseg 55.4 mIoU, human_parts
59.4 mIoU, sal 65.4 mIoU, edge 71.6 odsF, normals 15.0 degrees (multi-task performance -1.98 %). Not yet reproduced
here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, for_backbone, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, tasks=("all", "small"), backbone="hrnet_w18")
    small = arg.tasks == "small"
    tasks = ("semseg", "human_parts", "sal") + (() if small else ("normals", "edge"))
    return Config(
        data=Data("pascal", tasks),
        model=Model("baseline", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(
            batch_size=for_backbone(arg.backbone, hrnet=8, resnet=6, swin=6, convnext=6), epochs=80 if small else 100
        ),
    )
