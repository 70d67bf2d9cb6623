"""The settings of a component: which there are, their defaults, and what fits them.

A component declares its settings once, as the keyword-only parameters of its `make` or
the fields of its `Hyper`; every check of a configuration is drawn from there.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from cl_bench import ranges
from cl_bench.registry import UnknownNameError, nearest

MISSING = inspect.Parameter.empty
_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "a string",
    tuple: "a tuple",
    dict: "a dict",
    types.NoneType: "None",
}


class ConfigError(ValueError):
    """A value that its key cannot take; the message names both and what is accepted."""


class Field(NamedTuple):
    """One setting of a component."""

    name: str
    default: Any  # MISSING: a value must be given
    kinds: tuple[Any, ...]  # accepted types; () accepts anything
    static: bool = True  # False: traced, batched over lanes


class _Misfit(Exception):
    pass


def of_function(make: Callable[..., Any]) -> tuple[Field, ...]:
    """The keyword-only parameters of a component's `make`."""
    parameters = inspect.signature(make).parameters.values()
    return _of_parameters(make, [p for p in parameters if p.kind is p.KEYWORD_ONLY])


def of_options(load: Callable[..., Any]) -> tuple[Field, ...]:
    """All parameters of a data set's `load`, which has no others than its options."""
    return _of_parameters(load, list(inspect.signature(load).parameters.values()))


def _of_parameters(
    function: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> tuple[Field, ...]:
    hints = _hints(function)
    return tuple(
        Field(p.name, p.default, _kinds(hints.get(p.name, Any), p.default))
        for p in parameters
    )


def of_hyper(hyper: type) -> tuple[Field, ...]:
    """The fields of a method's `Hyper`: traced unless `pytree_node=False`."""
    hints = _hints(hyper)
    found = []
    for field in dataclasses.fields(hyper):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        default = MISSING if default is dataclasses.MISSING else default
        kinds = _kinds(hints.get(field.name, Any), default)
        static = not field.metadata.get("pytree_node", True)
        found.append(Field(field.name, default, kinds, static))
    return tuple(found)


def resolve(
    where: str, owner: str, fields: Sequence[Field], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Every field's value, in declared order: the default, or what was given for it.

    `where` is the section's path and `owner` the component's name, for the messages.
    Raises UnknownNameError for a key that no field has, ConfigError for a bad value.
    """
    known = tuple(f.name for f in fields)
    for key in given:
        if key not in known:
            raise UnknownNameError(
                f"{where}.{key}: {owner} has no setting {key!r}.{nearest(key, known)}"
            )
    values = {}
    for field in fields:
        if field.name not in given and field.default is MISSING:
            raise ConfigError(f"{where}.{field.name}: {owner} needs a value for it.")
        value = given.get(field.name, field.default)
        values[field.name] = fit(field, value, f"{where}.{field.name}")
    return values


def fit(field: Field, value: Any, where: str) -> Any:
    """The value as the field's type (1 -> 1.0, a list -> a tuple), or a ConfigError."""
    try:
        fitted = _fit_any(field.kinds, value)
    except _Misfit:
        raise ConfigError(f"{where} = {value!r}: {_expected(field, value)}") from None
    if words := ranges.expected(field.name, field.default, fitted):
        raise ConfigError(f"{where} = {value!r}: expected {words}.")
    return fitted


def fits(field: Field, value: Any) -> bool:
    """Whether the field can take the value."""
    try:
        fit(field, value, field.name)
    except ConfigError:
        return False
    return True


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError):  # an annotation that only a type checker can read
        return {}


def _kinds(annotation: Any, default: Any) -> tuple[Any, ...]:
    """The accepted types that can be judged: a union's members, else the default's."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    if Any in members or annotation is object:
        members = ()
    judged = tuple(_judged(m) for m in members if _judged(m) is not None)
    if not any(kind is not types.NoneType for kind in judged):
        known = default is not MISSING and type(default) in _WORDS
        if not known or default is None:
            return ()
        judged += (type(default),)
    return judged + ((types.NoneType,) if default is None else ())


def _judged(kind: Any) -> Any:
    """A type this module can check, in its plain form; None for any other."""
    origin = typing.get_origin(kind) or kind
    if origin is Literal or kind in _WORDS:
        return kind
    if kind is None:
        return types.NoneType
    if origin in (tuple, list, Sequence):
        elements = [a for a in typing.get_args(kind) if a is not Ellipsis]
        return tuple[elements[0], ...] if elements else tuple
    return dict if origin in (dict, Mapping) else None


def _fit_any(kinds: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if not kinds:
        return tuple(value) if isinstance(value, list) else value
    for kind in kinds:
        try:
            return _fit_one(kind, value)
        except _Misfit:
            continue
    raise _Misfit


def _fit_one(kind: Any, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and not math.isnan(value):
        return float(value)
    if kind is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if typing.get_origin(kind) is Literal:
        for option in typing.get_args(kind):
            if type(option) is type(value) and option == value:
                return value
    if (typing.get_origin(kind) or kind) is tuple and isinstance(value, list | tuple):
        element = _kinds(typing.get_args(kind)[0], MISSING) if kind is not tuple else ()
        return tuple(_fit_any(element, v) for v in value)
    if kind in (bool, str, types.NoneType) and isinstance(value, kind):
        return value
    if kind is dict and isinstance(value, Mapping):
        return dict(value)
    raise _Misfit


def _expected(field: Field, value: Any) -> str:
    options = [o for k in field.kinds for o in typing.get_args(k) if _is_literal(k)]
    words = [*dict.fromkeys(_word(k) for k in field.kinds if not _is_literal(k))]
    if options:
        words.append("one of " + ", ".join(map(repr, options)))
    default = "" if field.default is MISSING else f" (default {field.default!r})"
    hint = (
        nearest(value, [str(o) for o in options]).split(" Known:")[0]
        if options and isinstance(value, str)
        else ""
    )
    return f"expected {' or '.join(words)}{default}.{hint}"


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        element = _kinds(typing.get_args(kind)[0], MISSING)
        return "a tuple of: " + (" or ".join(map(_word, element)) or "anything")
    return _WORDS.get(kind, str(kind))
