r"""Cross-stitch networks (arXiv 1604.03539) on PASCAL-Context: five tasks.

It starts from the single-task models of the same backbone, one for each of semseg, human_parts, sal, normals and edge:

    mtl train pascal_single:task=semseg,backbone=resnet18_dilated \
        --workdir runs/pascal_single_resnet18_dilated_semseg
    mtl train pascal_cross_stitch --workdir runs/pascal_cross_stitch

To read them from other places: --model.options.single_task=PATTERN. To start from ImageNet weights instead:
--model.options.init_single_task=False
Options: backbone.
Recipe, for every backbone: batch 12, 20 epochs, SGD with 5e-3 (poly; the units that exchange features: 100 times that)
and momentum 0.9, weight decay 1e-4, alpha 0.8, beta 0.05.
Expected: no numbers are known for exactly this recipe. Not yet run on the real data here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="resnet18_dilated")
    return Config(
        data=Data("pascal", ("semseg", "human_parts", "sal", "normals", "edge")),
        model=Model(
            "cross_stitch",
            arg.backbone,
            pretrained="imagenet",
            options={
                "alpha": 0.8,
                "beta": 0.05,
                "init_single_task": True,
                "single_task": f"runs/pascal_single_{arg.backbone}_{{task}}",
            },
        ),
        optim=Optim("sgd", lr=5e-3, weight_decay=1e-4, momentum=0.9),
        train=Train(batch_size=12, epochs=20),
    )
