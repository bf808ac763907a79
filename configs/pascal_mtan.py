"""MTAN (arXiv 1803.10704) on PASCAL-Context: five tasks, each with attention masks over a shared ResNet.

    mtl train pascal_mtan --workdir runs/pascal_mtan

Options: backbone.
Recipe, for every backbone: ImageNet weights, batch 6, 100 epochs, SGD with 5e-3 (poly) and momentum 0.9, weight decay
1e-4. Expected: no numbers are known for exactly this recipe. Not yet run on the real data here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="resnet18_dilated")
    return Config(
        data=Data("pascal", ("semseg", "human_parts", "sal", "normals", "edge")),
        model=Model("mtan", arg.backbone, pretrained="imagenet"),
        optim=Optim("sgd", lr=5e-3, weight_decay=1e-4, momentum=0.9),
        train=Train(batch_size=6, epochs=100),
    )
