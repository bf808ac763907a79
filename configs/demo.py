"""A small MTI-Net on the embedded rendered rooms: `mtl demo` trains it in 10 to 20 minutes on two CPU cores.

    mtl train demo --workdir runs/demo

The recipe is that of configs/nyud_mtinet.py:aux=edge+normals at a fifth of the resolution. The model is trained from
scratch, hence the higher learning rate, on images that need no download.
"""

from mtl_jax.config import Config, Data, Model, Optim, Train


def get_config(arg=None):
    if arg:
        raise ValueError(f"the recipe demo takes no options after the colon, got {arg!r}; use --FIELD=VALUE")
    tasks = ("semseg", "depth")
    return Config(
        data=Data(
            "nyud",
            tasks,
            (*tasks, "edge", "normals"),
            builder="rendered_scenes/nyud",
            data_dir="data",
            image_size=(96, 128),
            num_workers=1,
        ),
        model=Model("mti_net", "hrnet_w18"),
        optim=Optim("adam", lr=1e-3, weight_decay=1e-4),
        train=Train(batch_size=8, epochs=6, eval_final_epochs=2, eval_batch_size=20, log_every=10),
    )
