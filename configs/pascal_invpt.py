"""InvPT (arXiv 2203.07997) on PASCAL-Context: five tasks, with a vision transformer.

    mtl train pascal_invpt --workdir runs/pascal_invpt
    mtl train pascal_invpt:backbone=vit_base_patch16 --model.pretrained=vit_base.pth --workdir runs/pascal_invpt_base

The weights are timm's (augreg, ImageNet-21k and ImageNet), from the Hugging Face Hub (extra hub) or a file as shown.
Options: backbone (any with four maps).
Recipe, for every backbone: inputs of 512x512, batch 6, 40000 steps, Adam with 2e-5 (poly by steps), weight decay 1e-6,
the augmentation `invpt`, stochastic depth up to 0.15. Losses: the L1 loss of normals is a sum over the three components
(3*l1), and edges may be shares of positives. Saliency has two logits.
Expected of vit_large_patch16 (invpt; the authors' weights): semseg 79.91 mIoU, human_parts 68.54 mIoU, sal 84.38
maxF_pixel, normals 13.90 degrees, edge 72.90 odsF. Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, backbone="vit_large_patch16")
    return Config(
        data=Data("pascal", ("semseg", "human_parts", "sal", "normals", "edge"), augmentation="invpt"),
        model=Model("invpt", arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=2e-5, weight_decay=1e-6, schedule_by="step"),
        train=Train(batch_size=6, epochs=0, steps=40000, eval_every=1000, eval_protocol="invpt"),
        losses={"normals": "3*l1", "edge": "bce:positive_weight=0.95,soft=true"},
    )
