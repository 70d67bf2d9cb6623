"""The arms of a sweep: labelled changes to a configuration, and their products."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cl_bench import components, fields
from cl_bench.atomic import canonical_json
from cl_bench.config import Sweep
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError, nearest

PARTS = ("stream", "network", "method")


class Arm(NamedTuple):
    """One labelled line of a sweep: changes to the configuration's sections."""

    label: str
    sections: dict[str, Any]


def collect(base: dict[str, Any], sweep: Sweep | None) -> list[Arm]:
    """What `sweep(add, config)` adds; without a sweep, one arm: the config itself."""
    arms: list[Arm] = []

    def add(label: str, **sections: Any) -> None:
        if not isinstance(label, str) or not label.strip():
            raise ConfigError(f"add({label!r}): an arm needs a name.")
        known = (*PARTS, "metrics", "oracle", "benchmark")
        for key, value in sections.items():
            if key not in known:
                raise UnknownNameError(
                    f"Arm {label!r}: no section {key!r}.{nearest(key, known)}"
                )
            if key in PARTS and not isinstance(value, Mapping | ConfigDict):
                raise ConfigError(f"Arm {label!r}: {key} = {value!r} is not a dict.")
            if key == "oracle" and not isinstance(value, bool):
                raise ConfigError(f"Arm {label!r}: oracle = {value!r} is not a bool.")
            if key == "benchmark" and not (value and isinstance(value, str)):
                raise ConfigError(f"Arm {label!r}: benchmark = {value!r} is no name.")
        arms.append(Arm(label, {k: _thaw(v) for k, v in sections.items()}))

    if sweep is None:
        return [Arm(base["method"].get("name", "?"), {})]
    sweep(add, ConfigDict(base, type_safe=False))
    if not arms:
        raise ConfigError("The experiment's sweep added no arm: call add(label, ...).")
    return arms


def replace_method(arm: Arm, method: str) -> Arm:
    """The arm's other settings under a method that the command line has chosen."""
    kept = {k: v for k, v in arm.sections.items() if k not in ("method", "oracle")}
    changes = [
        f"{key}={_show(value)}"
        for part in ("stream", "network")
        for key, value in kept.get(part, {}).items()
        if not isinstance(value, list)  # a product, labelled later
    ]
    return Arm(" ".join([method, *changes]), kept)


def method_only(arm: Arm) -> Arm:
    """The arm without what belongs to a benchmark."""
    kept = {k: v for k, v in arm.sections.items() if k in ("method", "oracle")}
    return Arm(arm.label, kept)


def unique(arms: Iterable[Arm]) -> list[Arm]:
    """The arms that differ in more than their label, each under its first label."""
    found: dict[str, Arm] = {}
    for arm in arms:
        found.setdefault(canonical_json(arm.sections), arm)
    return list(found.values())


def choose_methods(
    arms: list[Arm], base: dict[str, Any], methods: Sequence[str]
) -> list[Arm]:
    """The arms of the named methods; a method without any gets its defaults."""
    chosen = []
    for name in methods:
        components.fields_of("method", name)  # refuses what is no method
        own = [a for a in arms if _method_of(a, base) == name]
        chosen += own or [Arm(name, {"method": {"name": name}})]
    return chosen


def _method_of(arm: Arm, base: dict[str, Any]) -> str:
    return arm.sections.get("method", {}).get("name", base.get("name"))


def product(merged: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One entry for each combination of the values of the swept settings."""
    swept = [
        (part, key, value)
        for part in PARTS
        for key, value in merged[part].items()
        if isinstance(value, list) and _is_swept(part, merged[part]["name"], key, value)
    ]
    for values in itertools.product(*(value for _, _, value in swept)):
        chosen = {**merged, **{part: dict(merged[part]) for part in PARTS}}
        label = ""
        for (part, key, _), value in zip(swept, values, strict=True):
            chosen[part][key] = value
            label += f" {key}={_show(value)}"
        yield label, chosen


def _is_swept(part: str, name: str, key: str, value: list[Any]) -> bool:
    """Whether a list holds values to try, and is not itself the value of a tuple."""
    if not value:
        raise ConfigError(
            f"config.{part}.{key} = []: a sweep needs at least one value."
        )
    field = {f.name: f for f in components.fields_of(part, name)}.get(key)
    return (
        field is None or fields.fits(field, value[0]) or not fields.fits(field, value)
    )


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "x".join(map(_show, value)) or "none"
    return str(value)


def _thaw(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else value
