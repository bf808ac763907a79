"""InvPT (arXiv 2203.07997) on NYUD: semseg, depth, normals and edge, with a vision transformer.

    mtl train nyud_invpt --workdir runs/nyud_invpt
    mtl train nyud_invpt:backbone=vit_base_patch16 --model.pretrained=vit_base.pth --workdir runs/nyud_invpt_base

The weights are timm's (augreg, ImageNet-21k and ImageNet), from the Hugging Face Hub (extra hub) or a file as shown.
Options: backbone (any with four maps), release (of the data set).
Recipe, for every backbone: inputs of 448x576, batch 6, 40000 steps, Adam with 2e-5 (poly by steps), weight decay 1e-6,
the augmentation `invpt`, stochastic depth up to 0.15. Losses: the L1 loss of normals is a sum over the three components
(3*l1), and edges may be shares of positives.
Expected of vit_large_patch16 (invpt; the authors' weights): 53.65 mIoU, 0.5083 m, 18.68 degrees, edge 77.80 odsF, on
another release of the data set. Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="vit_large_patch16", release=("astmt", "survey"))
    return Config(
        data=Data("nyud", ("semseg", "depth", "normals", "edge"), release=arg.release, augmentation="invpt"),
        model=Model("invpt", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=2e-5, weight_decay=1e-6, schedule_by="step"),
        train=Train(batch_size=6, epochs=0, steps=40000, eval_every=1000, eval_protocol="invpt"),
        losses={"normals": "3*l1", "edge": "bce:positive_weight=0.95,soft=true"},
    )
