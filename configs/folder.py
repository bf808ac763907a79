"""Training on your own images and labels: a folder with a `dataset.toml` (docs/own_data.md).

    mtl train folder:root=DIR --workdir runs/own
    mtl train folder:root=DIR,model=baseline,tasks=semseg+depth --workdir runs/own_two

Options: root (the folder), model (mti_net, pad_net, baseline, single_task, ...), backbone, tasks (joined by +; by
default all tasks that the folder describes).
Recipe: that of the NYUD experiments. Image size, classes and tasks are read from the folder.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train, parse_arg


def get_config(arg=None):
    arg = parse_arg(arg, root="", model="mti_net", backbone="hrnet_w18", tasks="")
    return Config(
        data=Data("folder", tuple(filter(None, arg.tasks.split("+"))), manual_dir=arg.root),
        model=Model(arg.model, arg.backbone, pretrained="imagenet"),
        optim=Optim("adam", lr=1e-4, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=100),
    )
