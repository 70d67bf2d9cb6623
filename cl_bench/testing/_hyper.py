"""A method's settings as lanes: other values, not-a-numbers, neutral ones."""

import dataclasses
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cl_bench import fields
from cl_bench.testing._compare import require

Values = dict[str, Any]  # traced field -> numpy scalar or array


def traced_values(hyper: Any) -> Values:
    """The traced numbers of a Hyper with the dtypes that the runner gives them."""
    found = {}
    for field in fields.of_hyper(type(hyper)):
        value = getattr(hyper, field.name)
        if field.static or value is None:
            continue
        array = np.asarray(value)
        require(
            array.dtype.kind in "fib",
            f"Hyper.{field.name} = {value!r} is traced, and tracing takes numbers: "
            "declare it static, struct.field(pytree_node=False, default=...).",
        )
        real = float in field.kinds or array.dtype.kind == "f"
        whole = np.bool_ if array.dtype.kind == "b" else np.int32
        found[field.name] = array.astype(np.float32 if real else whole)
    return found


def other_values(values: Values) -> Values:
    """A tenth less of every real number, one more of every whole one."""

    def move(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind == "b":
            return ~value
        if value.dtype.kind == "i":
            return value + np.int32(1)
        return np.where(value == 0, np.float32(0.01), value * np.float32(0.9))

    return {name: move(value) for name, value in values.items()}


def poisoned_field(values: Values) -> str | None:
    """The setting that makes a lane diverge: its step size, or any real number."""
    real = [name for name, value in values.items() if value.dtype.kind == "f"]
    return "step_size" if "step_size" in real else next(iter(real), None)


def stacked(hyper: Any, lanes: Sequence[Values]) -> Any:
    """One Hyper whose traced fields are [L, ...]."""
    return hyper.replace(**{n: np.stack([lane[n] for lane in lanes]) for n in lanes[0]})


def with_values(hyper: Any, values: Values) -> Any:
    """The Hyper with these traced numbers."""
    return hyper.replace(**values)


def neutral(module: ModuleType, hyper: Any) -> Any | None:
    """The Hyper at which the method is backpropagation; None if it has none."""
    values = getattr(module, "NEUTRAL", None)
    return None if values is None else hyper.replace(**values)


def check_declarations(module: ModuleType) -> None:
    """REFERENCE, NEEDS, Hyper, NEUTRAL and make, as the contract has them."""
    name = module.__name__
    reference = getattr(module, "REFERENCE", None)
    require(
        isinstance(reference, str) and reference,
        f"{name}.REFERENCE must be a text that names the source of the method.",
    )
    needs = getattr(module, "NEEDS", None)
    known = frozenset({"boundaries", "task_id", "validation"})
    require(
        isinstance(needs, frozenset) and needs <= known,
        f"{name}.NEEDS = {needs!r} must be a frozenset out of {sorted(known)}.",
    )
    hyper: Any = getattr(module, "Hyper", None)
    require(
        dataclasses.is_dataclass(hyper) and hasattr(hyper, "replace"),
        f"{name}.Hyper must be a flax.struct.dataclass.",
    )
    require(
        _makes_default(hyper), f"{name}.Hyper() must work: give all fields defaults."
    )
    require(callable(getattr(module, "make", None)), f"{name}.make(net, spec, hyper)?")
    unknown = set(getattr(module, "NEUTRAL", None) or ()) - {
        field.name for field in dataclasses.fields(hyper)
    }
    require(not unknown, f"{name}.NEUTRAL names {sorted(unknown)}, no fields of Hyper.")


def _makes_default(hyper: Callable[[], Any]) -> bool:
    try:
        hyper()
    except TypeError:
        return False
    return True
