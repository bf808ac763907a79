"""The configuration of an experiment as plain typed dataclasses; files in configs/ import nothing else of the package.

Fields can be overridden on the command line (`--optim.lr=3e-4`). Overrides assign to the fields, so the
dataclasses are mutable and no field is derived from another before all overrides are in. Beside its default every field
has its rules (`rules.Rules`): the values it may take, and whether a run may go on with another value.
"""

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from mtl_jax import optim
from mtl_jax.config.rules import option
from mtl_jax.data import catalogue, transforms
from mtl_jax.data.label_fraction import LABEL_IMAGES
from mtl_jax.metrics import depth
from mtl_jax.protocol import PROTOCOLS

PLAIN_BALANCING = "fixed"
TRAINED, EMA = "trained", "ema"  # the weights of a checkpoint: those of the last step, or their moving average
WEIGHTS = {TRAINED: "trained weights", EMA: "averaged weights (EMA)"}  # {name: in words}


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
        augmentation: Augmentation of the training images: a key of `mtl_jax.data.RECIPES`, with changes of its
            parameters after a colon, as in "invpt:scale=0.5-1.5,photometric=false"; empty = the release's own. It also
            says how evaluation places an image in the network's input, and may have an `image_size` of its own.
        builder: TFDS builder and its config; empty = the release's own, `rendered_scenes/nyud` = the embedded scenes.
        data_dir: Folder of the built data sets; empty = ~/tensorflow_datasets.
        manual_dir: Folder or archive with the original files, from which the data set is built; for `folder` the folder
            with your images and labels.
        image_size: (height, width) of network inputs in pixels; (0, 0) = those of `augmentation` for the
            data set if it has any, otherwise the data set's resolution.
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
    augmentation: str = ""
    builder: str = ""
    data_dir: str = option("", may_change=True, same_experiment=True)
    manual_dir: str = option("", may_change=True, same_experiment=True)
    image_size: tuple[int, int] = (0, 0)
    border: str = option("", choices=("", *transforms.BORDERS))
    num_workers: int = option(4, least=0, may_change=True, same_experiment=True)
    skip_corrupt: bool = option(False, may_change=True)
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: str = ""
    protocol: str = ""
    _: KW_ONLY
    label_fraction: dict[str, float] = option(factory=dict)
    label_images: str = option("same", choices=LABEL_IMAGES)
    label_seed: int = option(0, least=0, same_experiment=True)


@dataclass
class Model:
    """Architecture.

    Attributes:
        name: Name of the model, a key of `mtl_jax.models.MODELS`.
        backbone: Name of the backbone, a key of `mtl_jax.backbones.BACKBONES`.
        head: Heads, a key of `mtl_jax.heads.HEADS` with arguments after a colon, as in "dpt:features=128"; empty =
            deeplab for a backbone with one map, hrnet for several.
        pretrained: Weights of the backbone: the name of published ones ("imagenet" for most backbones; `mtl list
            weights` lists all), the path of a file with torch-named arrays, or empty for random ones.
        pretrained_entry: Entry of the file `pretrained` that holds the weights, if the file is a training checkpoint
            with several: "state_dict_ema" for example. Empty = the only one, or the plain weights beside averaged ones.
        pretrained_prefix: Beginning of the backbone's names in the file, "encoder_q." for example. Arrays whose names
            begin otherwise are left out. Empty = the prefix that fits, if any.
        options: Options of this model alone, {name: value}. The class of a model's options lists them:
            `mtl_jax.models.SoftSharingOptions` for cross_stitch and nddr_cnn, `InvPTOptions` for invpt; the other
            models have none. The command line sets one by its name: `--model.options.alpha=0.8`.
        remat: Names of the stages whose activations are recomputed in the backward pass instead of being stored. That
            saves memory on a GPU, none on a CPU, and costs up to one more forward pass. The stages are those of the
            backbone (conv, layer1, stage2, ...; patch_embed and blocks_1 to blocks_4 of a vision transformer), heads,
            scale_0 to scale_3 of MTI-Net, fusion, initial_predictions and distillation of PAD-Net, attention_1 to
            attention_4 of MTAN, and preliminary and stage_0 to stage_2 of InvPT.
        dtype: Computation dtype, "float32" or "bfloat16"; parameters, statistics and losses stay float32.
        heads: {task: its head}, written as `head`; other tasks have `head`. On the command line:
            `--model.heads.semseg=bn_linear`.
        regression: {task: how its head computes values such as depth}, a key of `mtl_jax.heads.REGRESSIONS` with
            parameters after a colon; other tasks have a head with a single channel, which is the value itself. On the
            command line: `--model.regression.depth=bins:low=0.001,high=10`.
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
    _: KW_ONLY
    heads: dict[str, str] = field(default_factory=dict)
    regression: dict[str, str] = field(default_factory=dict)


@dataclass
class Optim:
    """Optimiser, learning rates and weight decay.

    Attributes:
        name: Optimiser, a key of `mtl_jax.optim.OPTIMIZERS`: "sgd", "adam", "adamw", "lamb", "lion", "adan" or "muon".
        options: Options of this optimiser alone, {name: value}; `mtl list optimizers` shows them with their defaults.
            The command line sets one by its name: `--optim.options.b2=0.95`.
        lr: Learning rate at the beginning, or at the end of the warm-up.
        weight_decay: Coefficient of the weight decay. For sgd and adam the decay is coupled: it is added to the
            gradient, as in torch. For the others it is decoupled, and multiplied by the learning rate, as in torch's
            AdamW.
        weight_decay_on: Parameters that decay: "all", or "kernels" (no biases, norms and position embeddings). Empty =
            all for sgd and adam, kernels for the others.
        momentum: Momentum of "sgd".
        clip_norm: Largest norm of the gradient. A longer gradient is scaled to this norm, over all parameters together,
            before weight decay and optimiser. 0 = no clipping.
        layer_decay: Factor on the learning rate from each layer of the backbone to the layer before it, for pretrained
            transformers: 0.65 to 0.9. The stem learns the slowest. 1 = none.
        multipliers: {part: factor on its learning rate}. A part is "backbone", what lies in it ("backbone.layer1"),
            "heads" (those of all tasks) or the path of any submodule or parameter. The most specific part that holds a
            parameter counts. On the command line: `--optim.multipliers.backbone=0.1`.
        freeze: Parts that do not learn, named as in `multipliers`. Their batch norms keep their running statistics and
            normalise with them, and their dropout is off. Their parameters are left out of the norms in the log.
        schedule: Schedule of the learning rate, a key of `mtl_jax.optim.SCHEDULES`: "poly"
            (lr * (1 - epoch / epochs) ** 0.9), "cosine" (lr * (1 + cos(pi * epoch / epochs)) / 2), "step" or
            "constant". After a warm-up it spans the rest of the run.
        schedule_by: Unit of the schedule: "epoch" (the rate is constant within an epoch, as in the published
            experiments) or "step" (the rate changes with every step of the optimiser).
        poly_power: Exponent of "poly"; 1 lets the rate fall linearly.
        min_lr: Learning rate that "poly", "cosine" and "step" fall towards in place of 0.
        decay_epochs: Epochs of "step" by epochs: each epoch after one of these multiplies the rate by `decay_rate`
            once. Epochs are counted from 0 at the beginning of the run. The least is the number of epochs
            of the warm-up.
        decay_steps: Numbers of steps of "step" by steps: after as many steps of the run the rate is multiplied by
            `decay_rate` once. Each is greater than the number of steps of the warm-up.
        decay_rate: Factor of "step".
        warmup_steps: Length of the warm-up in steps: the rate rises linearly from `warmup_start` * lr to lr. 0 = no
            warm-up, or as long a one as `warmup_epochs` says.
        warmup_epochs: Length of the warm-up in epochs, in place of `warmup_steps`.
        warmup_start: Factor on the learning rate of the first step of a warm-up.
        fusion_lr_multiplier: Factor on the learning rate of the parameters that exchange features between tasks in
            cross-stitch and NDDR-CNN.
    """

    name: str = option("adam", choices=optim.OPTIMIZERS)
    lr: float = option(1e-4, positive=True)
    weight_decay: float = option(1e-4, least=0)
    momentum: float = option(0.9, least=0, below=1)
    schedule: str = option("poly", choices=optim.SCHEDULES)
    decay_epochs: tuple[int, ...] = option((), least=0)
    decay_rate: float = option(0.1, positive=True, most=1)
    fusion_lr_multiplier: float = option(100.0, least=0)
    _: KW_ONLY
    # The class of an optimiser's options checks them.
    options: dict[str, Any] = field(default_factory=dict)
    weight_decay_on: str = option("", choices=("", *optim.DECAYED))
    clip_norm: float = option(0.0, least=0)
    layer_decay: float = option(1.0, positive=True, most=1)
    multipliers: dict[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    schedule_by: str = option("epoch", choices=("epoch", "step"))
    poly_power: float = option(0.9, positive=True)
    min_lr: float = option(0.0, least=0)
    decay_steps: tuple[int, ...] = option((), least=1)
    warmup_steps: int = option(0, least=0, instead_of="optim.warmup_epochs")
    warmup_epochs: int = option(0, least=0, instead_of="optim.warmup_steps")
    warmup_start: float = option(1e-6, least=0, most=1)


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
        epochs: Length of the run: number of passes over the training split; 0 = `steps` gives the length.
        steps: Length of the run: number of optimiser steps, which may end within an epoch; 0 = `epochs` gives the
            length. On the command line `--train.steps=40000` sets `epochs` to 0, and `--train.epochs=20` sets `steps`
            to 0.
        seed: Seed of the initial weights, the order of the images, the augmentation and dropout.
        eval_every: Number of steps between evaluations; 0 = `eval_final_epochs` says which epochs are evaluated. The
            last step of a run is always evaluated.
        eval_final_epochs: Number of last epochs that are each followed by an evaluation; 0 = all epochs are. It counts
            where `eval_every` is 0.
        eval_batch_size: Global batch size of evaluation; 0 = the training batch size.
        eval_protocol: Rules by which predictions are scored, a key of `mtl_jax.protocol.PROTOCOLS`: survey, astmt or
            invpt.
        depth_protocol: RMSE of depth: "image" (mean over the images of each image's RMSE) or "pixel" (over all
            pixels); "" = as `eval_protocol` says.
        ema: Decay of the exponential moving average (EMA) of parameters and batch-norm statistics, below 1, for
            example 0.999. After every step average = decay * average + (1 - decay) * weights. 0 = no average.
        ema_warmup: The decay of the average after t steps is at most (1 + t) / (10 + t), so that the average forgets
            the initial weights soon.
        eval_weights: Weights that evaluations in training score, and that the other commands load by default: "ema" or
            "trained"; empty = "ema" if there is an average, otherwise "trained".
        best: Score that ranks the checkpoints, as TASK/SCORE: "semseg/mIoU" or "depth/abs_rel" for example. The task is
            a main task, the score one of its metric's. Empty = the gain of all tasks, or for a single task the score
            that decides it.
        keep: Number of best checkpoints that stay, besides the two newest ones.
        patience: Number of evaluations in a row without a better score (see `best`) after which the run ends early; 0 =
            it never does. Evaluations before the first score do not count.
        log_every: Number of steps between two lines of the log.
        checkpoint_every: Number of steps between checkpoints, besides the one after every epoch; 0 = only that one.
        loggers: Loggers, keys of `mtl_jax.loggers.LOGGERS` with their options, as in
            `--train.loggers=tensorboard,csv,wandb:project=rooms,group=a`. log.jsonl is written in any case.
        log_images: Number of validation images that every evaluation logs with the prediction and the truth of each
            task; 0 = none.
    """

    batch_size: int = option(8, least=1)
    accumulate: int = option(1, least=1)
    batch_norm_groups: int = option(1, least=1)
    split_state: bool = option(False, may_change=True)
    epochs: int = option(100, least=0, instead_of="train.steps")
    seed: int = option(0, least=0, bits=32, same_experiment=True)
    eval_final_epochs: int = option(10, least=0)
    eval_batch_size: int = option(0, least=0)
    eval_protocol: str = option("survey", choices=PROTOCOLS)
    depth_protocol: str = option("", choices=("", *depth.PROTOCOLS))
    log_every: int = option(20, least=1, may_change=True, same_experiment=True)
    checkpoint_every: int = option(0, least=0, may_change=True, same_experiment=True)
    _: KW_ONLY
    steps: int = option(0, least=0, instead_of="train.epochs")
    eval_every: int = option(0, least=0)
    ema: float = option(0.0, least=0, below=1)
    ema_warmup: bool = False
    eval_weights: str = option("", choices=("", *WEIGHTS))
    best: str = ""
    keep: int = option(1, least=1, may_change=True, same_experiment=True)
    patience: int = option(0, least=0)
    loggers: tuple[str, ...] = option(("jsonl", "tensorboard"), may_change=True, same_experiment=True)
    log_images: int = option(4, least=0, may_change=True, same_experiment=True)


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
        losses: {task: its loss}; other tasks have the loss of the task table. A loss is a name (`mtl list losses`) or a
            sum of names with weights and arguments, as in "ce+0.5*dice" and "ce:smoothing=0.1,class_weights=measured".
            On the command line: `--losses.depth=silog+0.5*gradient`.
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
