r"""NDDR-CNN (arXiv 1801.08297) on NYUD: semseg and depth.

It starts from the single-task models of the same backbone:

    mtl train nyud_single:task=semseg,backbone=resnet50_dilated \
        --workdir runs/nyud_single_resnet50_dilated_semseg
    mtl train nyud_single:task=depth,backbone=resnet50_dilated \
        --workdir runs/nyud_single_resnet50_dilated_depth
    mtl train nyud_nddr_cnn --workdir runs/nyud_nddr_cnn

To read them from other places: --model.options.single_task=PATTERN. To start from ImageNet weights instead:
--model.options.init_single_task=False
Options: backbone, release (of the data set, with its augmentation).
Recipe, for every backbone: batch 8, 50 epochs, SGD with 1e-3 (poly; the layers that exchange features: 100 times that)
and momentum 0.9, weight decay 1e-4, alpha 0.9, beta 0.1.
Expected: no numbers are known for exactly this recipe. Not yet run on the real data here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="resnet50_dilated", release=("astmt", "survey"), aliases={"protocol": "release"})
    return Config(
        data=Data("nyud", ("semseg", "depth"), release=arg.release),
        model=Model(
            "nddr_cnn",
            arg.backbone,
            pretrained="imagenet",
            options={
                "alpha": 0.9,
                "beta": 0.1,
                "init_single_task": True,
                "single_task": f"runs/nyud_single_{arg.backbone}_{{task}}",
            },
        ),
        optim=Optim("sgd", lr=1e-3, weight_decay=1e-4, momentum=0.9),
        train=Train(batch_size=8, epochs=50),
    )
