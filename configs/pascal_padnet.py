"""PAD-Net (arXiv 1805.04409) with HRNet-18 on PASCAL-Context: five tasks.

    mtl train pascal_padnet --workdir runs/pascal_padnet
    mtl train pascal_padnet:tasks=small --workdir runs/pascal_padnet_small

Options: tasks (small: semseg, human_parts and sal), backbone.
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs (small: 80), Adam with 1e-4 (poly), weight decay 1e-4.
Expected: no numbers are known for exactly this recipe. Not yet run on the real data here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, tasks=("all", "small"), backbone="hrnet_w18")
    small = arg.tasks == "small"
    tasks = ("semseg", "human_parts", "sal") + (() if small else ("normals", "edge"))
    return Config(
        data=Data("pascal", tasks, tasks),
        model=Model("pad_net", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=80 if small else 100),
    )
