"""Sections of a configuration as components: defaults, overrides, and making them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from cl_bench import fields, optimizers, registry
from cl_bench.fields import ConfigError, Field
from cl_bench.registry import UnknownNameError
from cl_bench.schedule import schedule
from cl_bench.types import Method, Metric, Network, Stream

Section = Mapping[str, Any]  # {'name': component, setting: value, ...}


class Parts(NamedTuple):
    """What one compiled program is made of."""

    stream: Stream
    network: Network
    method: ModuleType
    metrics: list[Metric]


def fields_of(kind: str, name: str) -> tuple[Field, ...]:
    """The settings of a component; `kind` is the section: stream, network, ..."""
    if not isinstance(name, str):
        raise ConfigError(f"config.{kind}.name = {name!r}: expected a string.")
    if kind == "method" and name in optimizers.NAMES:
        raise UnknownNameError(
            f"{name!r} is an optimiser, no method: --config.method.optimizer={name} sets "
            "that of a method, of 'backprop' where nothing else is wanted."
        )
    module = registry.load(f"{kind}s", name)
    if kind == "method":
        return fields.of_hyper(module.Hyper)
    return fields.of_function(module.make)


def resolve(kind: str, section: Section) -> dict[str, Any]:
    """The section with every setting of its component, defaults filled in."""
    name, given = _split(kind, section)
    where = f"config.{kind}" if kind != "metric" else f"config.metrics[{name!r}]"
    return {"name": name} | fields.resolve(where, name, fields_of(kind, name), given)


def resolve_metrics(metrics: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Metrics given by name or as {'name': ..., setting: value}, completed."""
    found = []
    for metric in [metrics] if isinstance(metrics, str | Mapping) else metrics:
        if not isinstance(metric, str | Mapping):
            raise ConfigError(f"config.metrics: {metric!r} is no name and no dict.")
        section = {"name": metric.strip()} if isinstance(metric, str) else metric
        found.append(resolve("metric", section))
    for i, metric in enumerate(found):
        if metric in found[:i]:
            raise ConfigError(f"config.metrics: {metric['name']!r} stands there twice.")
    return tuple(found)


def merge(kind: str, base: Section, over: Section) -> dict[str, Any]:
    """`base` updated by `over`.

    Where `over` names another component its defaults are derived anew, and of `base`
    remains what the two share: for a method the settings of its optimiser, for a stream
    or a network every setting that the new one has too.
    """
    name = over.get("name", base.get("name"))
    if base.get("name") not in (None, name):
        kept = {field.name for field in fields_of(kind, name)}
        if kind == "method":
            kept &= {f.name for f in fields.of_hyper(optimizers.OptimHyper)}
        base = {key: value for key, value in base.items() if key in kept}
    return {**base, **over, "name": name}


def override(kind: str, section: Section, overrides: Section) -> dict[str, Any]:
    """The section under `kind.key` overrides, of which it takes those it knows."""
    start = f"{kind}."
    given = {k[len(start) :]: v for k, v in overrides.items() if k.startswith(start)}
    if not given:
        return dict(section)
    if "name" in given:
        section = merge(kind, section, {"name": given.pop("name")})
    known = {field.name for field in fields_of(kind, _split(kind, section)[0])}
    return {**section, **{key: v for key, v in given.items() if key in known}}


def make(
    stream: Section, network: Section, metrics: Sequence[Section], method: str
) -> Parts:
    """The `Parts` that resolved sections describe; nothing is compiled or loaded."""
    made = _call("stream", stream)
    with _explained("stream", stream["name"]):
        schedule(made.spec)
    net = _call("network", network, made.spec)
    return Parts(
        made,
        net,
        registry.load("methods", method),
        [_call("metric", metric, net, made.spec) for metric in metrics],
    )


def make_method(parts: Parts, section: Section) -> Method:
    """The method of a resolved section; bad combinations of values end here.

    So does a metric that cannot measure the method.
    """
    name, values = _split("method", section)
    with _explained("method", name):
        hyper = parts.method.Hyper(**values)
        if isinstance(hyper, optimizers.OptimHyper):
            optimizers.check(hyper)
        if hasattr(parts.method, "check"):
            parts.method.check(hyper)
        method = parts.method.make(parts.network, parts.stream.spec, hyper)
        for metric in parts.metrics:
            if metric.check is not None:
                metric.check(method)
        return method


def _call(kind: str, section: Section, *args: Any) -> Any:
    name, static = _split(kind, section)
    with _explained(kind, name):
        return registry.load(f"{kind}s", name).make(*args, **static)


@contextlib.contextmanager
def _explained(kind: str, name: str) -> Iterator[None]:
    """A component's own ValueError, with the section it came from."""
    try:
        yield
    except (ConfigError, UnknownNameError):
        raise
    except ValueError as error:
        raise ConfigError(f"config.{kind} ({name}): {error}") from error


def _split(kind: str, section: Section) -> tuple[str, dict[str, Any]]:
    """A section's component name and its other settings."""
    if "name" not in section:
        raise ConfigError(f"config.{kind} has no 'name': which {kind} is it?")
    return section["name"], {k: v for k, v in section.items() if k != "name"}
