"""A component is a file found by its name: listing, loading, and the nearest name."""

import difflib
import importlib
import importlib.util
import pkgutil
from functools import cache
from types import ModuleType

MADE_BY = {"datasets": "load"}  # the function of a component's file; others: make
KINDS = ("datasets", "streams", "networks", "methods", "metrics")


class UnknownNameError(ValueError):
    """A name that no component, key or benchmark has; the message gives the nearest."""


def nearest(name: str, valid: list[str] | tuple[str, ...]) -> str:
    """Ends an error message: the closest valid name, then all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(sorted(valid)) or 'none'}."


@cache
def names(kind: str) -> tuple[str, ...]:
    """Names of the built-in components of one kind, sorted."""
    package = importlib.import_module(f"cl_bench.{kind}")
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(n for n in found if not n.startswith("_")))


def load(kind: str, name: str) -> ModuleType:
    """The module of a component: a built-in name, or a dotted path to a user's own.

    Raises UnknownNameError where neither exists, or where a module has no function that
    makes a component. An error inside a user's module is not caught: its own traceback
    is the clearest message.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"No component kind {kind!r}.{nearest(kind, KINDS)}")
    if name in names(kind):
        return importlib.import_module(f"cl_bench.{kind}.{name}")
    if not name.startswith("_") and importable(name):
        module, made_by = importlib.import_module(name), MADE_BY.get(kind, "make")
        if callable(getattr(module, made_by, None)):
            return module
        raise UnknownNameError(
            f"Module {name!r} has no function {made_by!r}, so it is no {kind[:-1]}."
            f"{nearest(name, names(kind))}"
        )
    raise UnknownNameError(f"Unknown {kind[:-1]} {name!r}.{nearest(name, names(kind))}")


def importable(name: str) -> bool:
    """Whether Python finds a module of this dotted name."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
