r"""Single-task models on PASCAL-Context, which multi-task models are compared with.

    mtl train pascal_single:task=sal --workdir runs/pascal_single_hrnet_w18_sal
    mtl train pascal_single:task=sal,backbone=resnet18_dilated \
        --workdir runs/pascal_single_resnet18_dilated_sal

Options: task, backbone.
Recipe: ImageNet weights, 60 epochs, poly, weight decay 1e-4; HRNets: batch 8, SGD with 1e-2 and momentum 0.9; ResNets,
Swin Transformers, ConvNeXts: batch 12, Adam with 1e-4.
Expected of hrnet_w18 (reported for the PyTorch code of arXiv 2004.13379): semseg 59.4 mIoU, human_parts 60.3 mIoU,
sal 67.0 mIoU, edge 69.2 odsF, normals 14.6 degrees. Not yet reproduced here.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, for_backbone, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, task=("semseg", "human_parts", "sal", "normals", "edge"), backbone="hrnet_w18")
    of_hrnets = 8, Optim("sgd", lr=1e-2, weight_decay=1e-4, momentum=0.9)
    of_resnets = 12, Optim("adam", lr=1e-4, weight_decay=1e-4)
    batch_size, optim = for_backbone(
        arg.backbone, hrnet=of_hrnets, resnet=of_resnets, swin=of_resnets, convnext=of_resnets
    )
    return Config(
        data=Data("pascal", (arg.task,)),
        model=Model("single_task", arg.backbone, pretrained="imagenet"),
        optim=optim,
        train=Train(batch_size=batch_size, epochs=60),
    )
