"""MTI-Net (arXiv 2001.06902) with HRNet-18 on PASCAL-Context: five tasks.

    mtl train pascal_mtinet --workdir runs/pascal_mtinet
    mtl train pascal_mtinet:tasks=small --workdir runs/pascal_mtinet_small

Options: tasks (small: semseg, human_parts and sal), backbone.
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs (small: 80), Adam with 1e-4 (poly), weight decay 1e-4.
Expected on all tasks (reported for the PyTorch code of the paper): semseg 62.8 mIoU, human_parts 62.2 mIoU, sal 67.4
mIoU, edge 73.0 odsF, normals 14.8 degrees (multi-task performance +2.72 %). Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, tasks=("all", "small"), backbone="hrnet_w18")
    small = arg.tasks == "small"
    tasks = ("semseg", "human_parts", "sal") + (() if small else ("normals", "edge"))
    return Config(
        data=Data("pascal", tasks, tasks),
        model=Model("mti_net", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=80 if small else 100),
    )
