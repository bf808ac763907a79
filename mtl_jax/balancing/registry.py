"""The table of balancing methods by name, and their notation on the command line."""

from collections.abc import Callable
from typing import TypeVar

from mtl_jax import notation
from mtl_jax.balancing.core import Balancer
from mtl_jax.registry import Registry

Method = TypeVar("Method", bound=Callable[..., Balancer])

BALANCERS: Registry[Callable[..., Balancer]] = Registry(
    "balancing method", "balancing methods", "mtl_jax.balancing.register"
)


def register(method: Method) -> Method:
    """Adds a balancing method to `BALANCERS` under the name of its function, and returns the function.

    A decorator, inside this package as well as outside of it:

        @balancing.register
        def largest(*, margin: float = 0.0) -> balancing.Balancer:
            ...

    makes `balancing.parse("largest:margin=0.1")` and `--balancing=largest:margin=0.1` possible.

    Args:
        method: Function with keyword parameters only, each with a type annotation and a default, that returns a
            `Balancer`.

    Raises:
        ValueError: another method has this name.
    """
    BALANCERS.register(method.__name__, method)
    return method


def parse(text: str) -> Balancer:
    """Builds a method from its notation on the command line: NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE.

    `mtl_jax.notation` describes the values. A parameter that is a function can be set in Python only.

    Raises:
        ValueError: the method or a parameter is unknown, or a value has the wrong type or lies outside its range.
    """
    name, given = notation.split(text)
    method = BALANCERS[name]
    return method(**notation.arguments(given, method, f"the balancing method {name}"))
