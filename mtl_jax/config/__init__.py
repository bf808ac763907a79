"""The configuration of an experiment: its fields, their rules, its check, and its stored form."""

from mtl_jax.config.older_names import note_new_name, with_new_names
from mtl_jax.config.queries import (
    all_tasks,
    aux_tasks,
    eval_batch_size,
    eval_weights,
    fixed_on_resume,
    identity,
    image_size,
    main_tasks,
    num_channels,
    shared_by_processes,
)
from mtl_jax.config.recipe_options import for_backbone, parse_arg
from mtl_jax.config.rules import Rules, option, rules_of
from mtl_jax.config.sections import EMA, PLAIN_BALANCING, TRAINED, WEIGHTS, Config, Data, Model, Optim, Train
from mtl_jax.config.stored import from_json, to_json
from mtl_jax.config.validation import length_problems, validate

__all__ = [
    "EMA",
    "PLAIN_BALANCING",
    "TRAINED",
    "WEIGHTS",
    "Config",
    "Data",
    "Model",
    "Optim",
    "Rules",
    "Train",
    "all_tasks",
    "aux_tasks",
    "eval_batch_size",
    "eval_weights",
    "fixed_on_resume",
    "for_backbone",
    "from_json",
    "identity",
    "image_size",
    "length_problems",
    "main_tasks",
    "note_new_name",
    "num_channels",
    "option",
    "parse_arg",
    "rules_of",
    "shared_by_processes",
    "to_json",
    "validate",
    "with_new_names",
]
