"""The rules of the fields of a configuration: the values that a field may take, and whether a run may change it."""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_jax.config.sections import Config

_RULES = "rules"  # key of a field's `Rules` in its metadata


@dataclass(frozen=True)
class Rules:
    """The rules of one field.

    Attributes:
        choices: The values allowed, or a function from the configuration to them; None allows any value.
        least: The smallest value allowed. In a list it holds for every number, as all bounds do.
        positive: Only values above 0 are allowed.
        most: The greatest value allowed.
        below: Only values below this number are allowed.
        bits: Only values below 2^bits are allowed.
        may_change: A run may continue with another value of the field.
        same_experiment: Runs that differ only here are runs of one experiment, and share a line of a report.
        instead_of: Number that says the same in another unit: epochs in place of steps, for example. One of the two is
            0. Where the command line gives one of them, the other becomes 0.
    """

    choices: "Collection[str] | Callable[[Config], Collection[str]] | None" = None
    least: float | None = None
    positive: bool = False
    most: float | None = None
    below: float | None = None
    bits: int | None = None
    may_change: bool = False
    same_experiment: bool = False
    instead_of: str = ""

    def problems(self, name: str, value: Any, config: "Config") -> Iterator[str]:
        """Yields what is wrong with a field's value."""
        choices = self.choices(config) if callable(self.choices) else self.choices
        if choices is not None and value not in choices:
            yield f"{name} is {value!r}; it may be {' or '.join(map(repr, choices))}"
        numbers = value if isinstance(value, tuple | list) else (value,)
        if self.least is not None and any(number < self.least for number in numbers):
            yield f"{name} is {value}; the least is {self.least}"
        if self.positive and not all(number > 0 for number in numbers):
            yield f"{name} is {value}; it must be positive"
        if self.most is not None and any(number > self.most for number in numbers):
            yield f"{name} is {value}; the most is {self.most}"
        if self.below is not None and not all(number < self.below for number in numbers):
            yield f"{name} is {value}; it must be below {self.below}"
        if self.bits is not None and value >= 2**self.bits:
            yield f"{name} is {value}; it must be below 2^{self.bits}"


def option(
    default: Any = dataclasses.MISSING,
    *,
    factory: Any = dataclasses.MISSING,
    choices: "Collection[str] | Callable[[Config], Collection[str]] | None" = None,
    least: float | None = None,
    positive: bool = False,
    most: float | None = None,
    below: float | None = None,
    bits: int | None = None,
    may_change: bool = False,
    same_experiment: bool = False,
    instead_of: str = "",
) -> Any:
    """Returns a dataclass field with rules.

    Args:
        default: Default of the field.
        factory: In place of a default, a function without arguments that returns it: `dict` for an empty dict.
        choices, least, positive, most, below, bits, may_change, same_experiment, instead_of: Attributes of `Rules`.
    """
    rules = Rules(choices, least, positive, most, below, bits, may_change, same_experiment, instead_of)
    return field(default=default, default_factory=factory, metadata={_RULES: rules})


def fields(part: Any, prefix: str = "") -> Iterator[tuple[str, Any, Rules]]:
    """Yields (name, value, rules) of all fields, those of the sections in place of the sections."""
    for each in dataclasses.fields(part):
        name, value = prefix + each.name, getattr(part, each.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{name}.")
        else:
            yield name, value, rules_of(each)


def rules_of(each: dataclasses.Field) -> Rules:
    """Returns the rules of a field that `option` made; a field without rules allows any value."""
    return each.metadata.get(_RULES, Rules())
