"""MTI-Net (arXiv 2001.06902) with HRNet-18 on NYUD: semseg and depth.

    mtl train nyud_mtinet --workdir runs/nyud_mtinet
    mtl train nyud_mtinet:aux=edge+normals --workdir runs/nyud_mtinet_aux

Options: aux (more auxiliary tasks), backbone, release (of the data set, with its augmentation).
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs, Adam with 1e-4 (poly), weight decay 1e-4.
Expected (astmt, image-wise RMSE; reported for the PyTorch code of the paper): 36.2 mIoU, 0.563 m (multi-task
performance +6.36 %); with edge and normals 37.6 mIoU, 0.539 m (+10.32 %). Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, aux="", backbone="hrnet_w18", release=("astmt", "survey"), aliases={"protocol": "release"})
    tasks = ("semseg", "depth")
    return Config(
        data=Data("nyud", tasks, (*tasks, *filter(None, arg.aux.split("+"))), release=arg.release),
        model=Model("mti_net", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
