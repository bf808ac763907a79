"""Dense heads on DINOv2 (arXiv 2304.07193) on PASCAL-Context: one transformer, a DPT or linear head for each task.

    mtl train pascal_dinov2 --workdir runs/pascal_dinov2
    mtl train pascal_dinov2:head=linear,backbone=dinov2_small --workdir runs/pascal_dinov2_linear
    mtl train pascal_dinov2:encoder=tuned,tasks=small --workdir runs/pascal_dinov2_tuned

Options: backbone (any vision transformer), head (dpt, or linear with batch norm for semseg, human_parts and sal),
encoder (frozen or tuned), tasks (small: semseg, human_parts and sal), weights (file with the weights of the backbone,
empty = weights/BACKBONE.pth, see docs/backbones.md).
Recipe: batch 16, 40000 steps with 1500 of warm-up, AdamW with 1e-3 for linear heads on a frozen encoder and 1e-4
otherwise (falling linearly), weight decay 1e-4. A tuned encoder has weight decay 0.05, gradients clipped to the norm 1
and a rate that decays by 0.75 from block to block.
Length, warm-up and rate of linear heads are those of DINOv2's linear segmentation heads on PASCAL VOC. Expected: no
numbers are known for exactly this recipe. Not yet run on the real data here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, for_backbone, parse_arg


def get_config(arg=None):
    arg = parse_arg(
        arg,
        backbone="dinov2_base",
        head=("dpt", "linear"),
        encoder=("frozen", "tuned"),
        tasks=("all", "small"),
        weights="",
    )
    linear, frozen = arg.head == "linear", arg.encoder == "frozen"
    whole_patches = (518, 518)  # with patches of 14 pixels; the grid that DINOv2 was trained with
    size = for_backbone(arg.backbone, dinov2=whole_patches, dinov3=(512, 512), vit=(512, 512), deit=(512, 512))
    of_classes = ("semseg", "human_parts", "sal")
    return Config(
        data=Data("pascal", of_classes + (() if arg.tasks == "small" else ("normals", "edge")), image_size=size),
        model=Model(
            "baseline",
            arg.backbone,
            arg.head,
            pretrained=arg.weights or f"weights/{arg.backbone}.pth",
            heads=dict.fromkeys(of_classes, "bn_linear") if linear else {},
        ),
        optim=Optim(
            "adamw",
            lr=1e-3 if linear and frozen else 1e-4,
            weight_decay=1e-4 if frozen else 0.05,
            clip_norm=0.0 if frozen else 1.0,
            layer_decay=1.0 if frozen else 0.75,
            freeze=("backbone",) if frozen else (),
            schedule_by="step",
            poly_power=1.0,
            warmup_steps=1500,
        ),
        train=Train(batch_size=16, epochs=0, steps=40000, eval_every=4000),
    )
