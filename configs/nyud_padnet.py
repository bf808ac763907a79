"""PAD-Net (arXiv 1805.04409) with HRNet-18 on NYUD: semseg and depth.

    mtl train nyud_padnet --workdir runs/nyud_padnet
    mtl train nyud_padnet:aux=edge+normals --workdir runs/nyud_padnet_aux

Options: aux (more auxiliary tasks), backbone, release (of the data set, with its augmentation).
Recipe, for every backbone: ImageNet weights, batch 8, 100 epochs, Adam with 1e-4 (poly), weight decay 1e-4.
Expected (astmt, image-wise RMSE; reported for the PyTorch code of arXiv 2001.06902): 35.4 mIoU, 0.614 m (multi-task
performance +1.13 %); with edge and normals 35.5 mIoU, 0.593 m (+2.90 %). Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, aux="", backbone="hrnet_w18", release=("astmt", "survey"), aliases={"protocol": "release"})
    tasks = ("semseg", "depth")
    return Config(
        data=Data("nyud", tasks, (*tasks, *filter(None, arg.aux.split("+"))), release=arg.release),
        model=Model("pad_net", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
