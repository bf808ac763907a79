"""MTAN (arXiv 1803.10704) on NYUD: semseg and depth, each with attention masks over a shared ResNet.

    mtl train nyud_mtan --workdir runs/nyud_mtan

Options: backbone, release (of the data set, with its augmentation).
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs, Adam with 1e-4 (poly), weight decay 1e-4.
Expected (astmt, image-wise RMSE; reported for the PyTorch code of arXiv 2004.13379): 40.0 mIoU, 0.572 m. Not yet
reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="resnet50_dilated", release=("astmt", "survey"), aliases={"protocol": "release"})
    return Config(
        data=Data("nyud", ("semseg", "depth"), release=arg.release),
        model=Model("mtan", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
