"""The configuration of an experiment as plain typed dataclasses; files in configs/ import nothing else of the package.

Fields can be overridden on the command line (`--optim.lr=3e-4`). Overrides assign to the fields, so the
dataclasses are mutable and no field is derived from another before all overrides are in. Beside its default every field
has its rules (`rules.Rules`): the values it may take, and whether a run may go on with another value.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from mtl_jax import optim
from mtl_jax.config.rules import option
from mtl_jax.data import catalogue, transforms
from mtl_jax.data.label_fraction import LABEL_IMAGES
from mtl_jax.metrics import depth
from mtl_jax.protocol import PROTOCOLS

PLAIN_BALANCING = "fixed"


def _releases(config: "Config") -> Collection[str]:
    """Returns the releases of the data set; of an unknown data set, which is another problem, any."""
    name = config.data.dataset
    return catalogue.get(name).recipes if name in catalogue.DATASETS else (config.data.release,)


@dataclass
class Data:
    """The images, and the tasks that are learned from them.

    Attributes:
        dataset: Data set, which sets label conventions and resolution: a key of `mtl_jax.data.DATASETS`, for example
            nyud, pascal, or folder for a folder of your own.
        tasks: Main tasks.
        aux_tasks: Tasks supervised at the intermediate predictions of PAD-Net and MTI-Net; empty = the main tasks.
        release: Release of the data set: "astmt" or "survey".
        augmentation: Augmentation of the training images: a key of `mtl_jax.data.transforms.RECIPES`; empty = the
            release's own.
        builder: TFDS builder and its config; empty = the release's own, `rendered_scenes/nyud` = the embedded scenes.
        data_dir: Folder of the built data sets; empty = ~/tensorflow_datasets.
        manual_dir: Folder or archive with the original files, from which the data set is built; for `folder` the folder
            with your images and labels.
        image_size: (height, width) of network inputs in pixels; (0, 0) = the data set's resolution.
        border: Labels outside of a rotated image: "zero" (class 0, background) as in the published experiments, or
            "ignore"; empty means "zero" for NYUD and PASCAL, and "ignore" for other data.
        num_workers: Number of processes that read and transform images; 0 = none.
        skip_corrupt: Training replaces an image that cannot be read by another one and logs a warning. Evaluation needs
            every image.
        label_fraction: {task: fraction of its labelled training images that keep the label}, to study learning from few
            labels. The name "all" stands for the tasks without a fraction of their own; empty = all labels. On the
            command line: `--data.label_fraction=0.1` for all tasks, `--data.label_fraction.depth=0.1` for one. The
            images for 0.1 are among those for 0.2. Training leaves out images without any label.
        label_images: Images that keep their labels, a key of `mtl_jax.data.label_fraction.LABEL_IMAGES`. "same": the
            tasks keep labels on the same images. "independent": each task keeps them on images of its own. "one_label":
            each image keeps the label of one task (arXiv 2111.14893), and `label_fraction` is a fraction of these.
        label_seed: Seed of the choice of these images, apart from `train.seed`.
        class_names: {task: names of its classes} of a folder of your own; filled in from the folder's description.
        axes: Axes of the normals, see `mtl_jax.labels.axes`; empty = those that the data set declares. For a folder of
            your own it is filled in from the folder's description.
        protocol: Older name of `release`. A value given here is moved to `release`, with a note in the log.
    """

    dataset: str = "nyud"
    tasks: tuple[str, ...] = ()
    aux_tasks: tuple[str, ...] = ()
    release: str = option("astmt", choices=_releases)
    augmentation: str = option("", choices=("", *transforms.RECIPES))
    builder: str = ""
    data_dir: str = option("", may_change=True, same_experiment=True)
    manual_dir: str = option("", may_change=True, same_experiment=True)
    image_size: tuple[int, int] = (0, 0)
    border: str = option("", choices=("", *transforms.BORDERS))
    num_workers: int = option(4, least=0, may_change=True, same_experiment=True)
    skip_corrupt: bool = option(False, may_change=True)
    label_fraction: dict[str, float] = option(factory=dict)
    label_images: str = option("same", choices=LABEL_IMAGES)
    label_seed: int = option(0, least=0, same_experiment=True)
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: str = ""
    protocol: str = ""


@dataclass
class Model:
    """Architecture.

    Attributes:
        name: Name of the model, a key of `mtl_jax.models.MODELS`.
        backbone: Name of the backbone, a key of `mtl_jax.backbones.BACKBONES`.
        head: Name of the heads, a key of `mtl_jax.heads.HEADS`; empty = deeplab for a backbone with one map, hrnet for
            several.
        pretrained: Weights of the backbone: "imagenet", the path of a file with torch-named arrays, or empty for
            random ones.
        pretrained_entry: Entry of the file `pretrained` that holds the weights, if the file is a training checkpoint
            with several: "state_dict_ema" for example. Empty = the only one, or the plain weights beside averaged ones.
        pretrained_prefix: Beginning of the backbone's names in the file, "encoder_q." for example. Arrays whose names
            begin otherwise are left out. Empty = the prefix that fits, if any.
        options: Options of this model alone, {name: value}. The class of a model's options lists them:
            `mtl_jax.models.SoftSharingOptions` for cross_stitch and nddr_cnn; the other models have none. The command
            line sets one by its name: `--model.options.alpha=0.8`.
        remat: Names of the stages whose activations are recomputed in the backward pass instead of being stored. That
            saves memory on a GPU, none on a CPU, and costs up to one more forward pass. The stages are those of the
            backbone (conv, layer1, stage2, ..., patch_embed and blocks_1 to blocks_4 of a vision transformer), heads,
            scale_0 to scale_3 of MTI-Net, fusion, initial_predictions and distillation of PAD-Net, and attention_1 to
            attention_4 of MTAN.
        dtype: Computation dtype, "float32" or "bfloat16"; parameters, statistics and losses stay float32.
    """

    name: str = "mti_net"
    backbone: str = "hrnet_w18"
    head: str = ""
    pretrained: str = option("", may_change=True)
    pretrained_entry: str = option("", may_change=True)
    pretrained_prefix: str = option("", may_change=True)
    # The rules of each option stand beside it, in the class of the model's options.
    options: dict[str, Any] = option(factory=dict, may_change=True, same_experiment=True)
    remat: tuple[str, ...] = option((), may_change=True)
    dtype: str = option("float32", choices=("float32", "bfloat16"))


@dataclass
class Optim:
    """Optimiser with torch's semantics: the weight decay is added to the gradient.

    Attributes:
        name: Optimiser, a key of `mtl_jax.optim.OPTIMIZERS`: "adam" or "sgd".
        lr: Learning rate of epoch 0.
        weight_decay: Coupled L2 coefficient, applied to every parameter.
        momentum: Momentum of "sgd".
        schedule: Schedule of the learning rate, a key of `mtl_jax.optim.SCHEDULES`: "poly"
            (lr * (1 - epoch / epochs) ** 0.9), "step" or "constant".
        decay_epochs: Epochs of "step": each epoch after one of these multiplies the rate by `decay_rate` once.
        decay_rate: Factor of "step".
        fusion_lr_multiplier: Factor on the learning rate of the parameters that exchange features between tasks in
            cross-stitch and NDDR-CNN.
    """

    name: str = option("adam", choices=optim.OPTIMIZERS)
    lr: float = option(1e-4, positive=True)
    weight_decay: float = option(1e-4, least=0)
    momentum: float = option(0.9, least=0)
    schedule: str = option("poly", choices=optim.SCHEDULES)
    decay_epochs: tuple[int, ...] = ()
    decay_rate: float = option(0.1, least=0)
    fusion_lr_multiplier: float = option(100.0, least=0)


@dataclass
class Train:
    """The training run.

    Attributes:
        batch_size: Global batch size of an optimiser step, over all devices of all processes.
        accumulate: Number of micro-batches that a batch is split into. They are computed one after the other, to save
            memory. Losses and gradients stay those of the whole batch, with two exceptions: batch norm normalises every
            micro-batch with its own statistics, and the dropout masks differ.
        batch_norm_groups: Number of equal parts of the batch, or of each micro-batch, that batch norm normalises with
            their own statistics, as the devices of torch's DataParallel, and of DistributedDataParallel without
            SyncBatchNorm, do. The first part moves the running statistics. 1 = statistics of the whole batch, over all
            devices.
        split_state: Large arrays of parameters and optimiser are split over the devices, and gathered for a step: less
            memory for more communication (ZeRO, arXiv 1910.02054). Otherwise every device holds all of them.
        epochs: Number of passes over the training split.
        seed: Seed of the initial weights, the order of the images, the augmentation and dropout.
        eval_final_epochs: Number of last epochs that are each followed by an evaluation; 0 = all epochs are.
        eval_batch_size: Global batch size of evaluation; 0 = the training batch size.
        eval_protocol: Rules by which predictions are scored, a key of `mtl_jax.protocol.PROTOCOLS`: survey, astmt or
            invpt.
        depth_protocol: RMSE of depth: "image" (mean over the images of each image's RMSE) or "pixel" (over all
            pixels); "" = as `eval_protocol` says.
        log_every: Number of steps between two lines of the log.
        checkpoint_every: Number of steps between checkpoints, besides the one after every epoch; 0 = only that one.
    """

    batch_size: int = option(8, least=1)
    accumulate: int = option(1, least=1)
    batch_norm_groups: int = option(1, least=1)
    split_state: bool = option(False, may_change=True)
    epochs: int = option(100, least=1)
    seed: int = option(0, least=0, bits=32, same_experiment=True)
    eval_final_epochs: int = option(10, least=0)
    eval_batch_size: int = option(0, least=0)
    eval_protocol: str = option("survey", choices=PROTOCOLS)
    depth_protocol: str = option("", choices=("", *depth.PROTOCOLS))
    log_every: int = option(20, least=1, may_change=True, same_experiment=True)
    checkpoint_every: int = option(0, least=0, may_change=True, same_experiment=True)


@dataclass
class Config:
    """One experiment.

    Attributes:
        data: Images and tasks.
        model: Architecture.
        optim: Optimiser.
        train: Training run.
        balancing: Method that combines the tasks' losses or gradients: "fixed" for a weighted sum, or a method of
            `mtl_jax.balancing` with its parameters, as in "cagrad" and "dwa:temperature=2,window=100".
        losses: {task: name of its loss}, keys of `mtl_jax.losses.LOSSES`; other tasks have the loss of the task table.
            On the command line: `--losses.depth=depth_l1`.
        loss_weights: {task: weight of its loss in the sum}; other tasks have the weight of the task table, and the only
            task of a single-task model has the weight 1. On the command line: `--loss_weights.edge=50`.
        imports: Modules outside of the package that register tasks, losses, models or data sets. They are imported
            before names are looked up.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    balancing: str = PLAIN_BALANCING
    losses: dict[str, str] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    imports: tuple[str, ...] = option((), may_change=True, same_experiment=True)
