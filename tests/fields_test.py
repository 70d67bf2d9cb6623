"""Settings and the types of their fields: what fits, and how the rest is explained."""

from typing import Literal

import pytest

from cl_bench import fields
from cl_bench.fields import ConfigError


def sample_make(
    *,
    num_tasks: int = 3,
    rate: float = 0.5,
    widths: tuple[int, ...] = (4,),
    kind: Literal["fast", "slow"] = "fast",
    steps_per_task: int | tuple[int, ...] | None = None,
    reset: bool = False,
    folder: str | None = None,
    examples_per_eval: int = 0,
    free=None,
    step_size: float = 0.1,
    replacement_rate: float = 0.0,
    strength: float | None = None,
    noise_std: float = 0.0,
    weight_decay: float = 0.0,
    damping: float = 0.0,
    data_size: float = 1.0,
    threshold: float = 0.1,
    held_out_batch: int = 100,
    decay: float = 0.99,
    slow_momentum: float = 0.999,
    percentile: float = 0.99,
    zeta: float = 1.0,
):
    """Stands for a component's make; only its signature is read."""


@pytest.mark.parametrize(
    ("key", "value", "fitted"),
    [
        ("num_tasks", 2.0, 2),
        ("rate", 1, 1.0),
        ("widths", [2, 3], (2, 3)),
        ("widths", (), ()),
        ("kind", "slow", "slow"),
        ("steps_per_task", [5, 6], (5, 6)),
        ("steps_per_task", None, None),
        ("folder", None, None),
        ("examples_per_eval", 0, 0),
        ("free", [1, "a"], (1, "a")),
        ("step_size", 0, 0.0),
        ("strength", None, None),
        ("threshold", -1, -1.0),
        ("weight_decay", 1.5, 1.5),
        ("decay", 0, 0.0),
        ("percentile", 1, 1.0),
        ("threshold", float("inf"), float("inf")),
    ],
)
def test_a_value_takes_its_fields_type(key, value, fitted):
    found = fields.resolve(
        "config", "it", fields.of_function(sample_make), {key: value}
    )
    assert found[key] == fitted
    assert type(found[key]) is type(fitted)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_tasks", -4, r"config\.num_tasks = -4: expected at least 1"),
        ("num_tasks", 2.5, r"= 2\.5: expected a whole number \(default 3\)"),
        ("num_tasks", True, "expected a whole number"),
        ("rate", "abc", r"config\.rate = 'abc': expected a number"),
        ("rate", float("nan"), "expected a number"),
        ("step_size", -1.0, r"config\.step_size = -1\.0: expected .* 0 or more"),
        ("step_size", float("inf"), "config.step_size = inf: expected a finite"),
        ("replacement_rate", -2, "config.replacement_rate = -2: .* 0 or more"),
        ("strength", -0.1, "config.strength = -0.1: .* 0 or more"),
        ("noise_std", -0.1, "config.noise_std = -0.1: .* 0 or more"),
        ("weight_decay", -0.1, "config.weight_decay = -0.1: .* 0 or more"),
        ("damping", -0.1, "config.damping = -0.1: .* 0 or more"),
        ("zeta", -0.1, "config.zeta = -0.1: .* 0 or more"),
        ("data_size", 0.0, "config.data_size = 0.0: .* above 0"),
        ("decay", 1.0, "config.decay = 1.0: expected from 0 to below 1"),
        ("slow_momentum", 1.5, "config.slow_momentum = 1.5: .* from 0 to below 1"),
        ("percentile", 99, "config.percentile = 99: expected from 0 to 1"),
        ("held_out_batch", 0, "config.held_out_batch = 0: expected at least 1"),
        ("widths", 5, "expected a tuple of: a whole number"),
        ("widths", ("a",), "expected a tuple of: a whole number"),
        ("widths", (0,), "expected at least 1"),
        ("steps_per_task", (5, 0), "expected at least 1"),
        ("kind", "sloww", "one of 'fast', 'slow'.*Did you mean 'slow'"),
        ("reset", 1, "expected True or False"),
        ("folder", 3, "expected a string or None"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(key, value, message):
    with pytest.raises(ConfigError, match=message):
        fields.resolve("config", "it", fields.of_function(sample_make), {key: value})


def test_a_required_setting_is_asked_for():
    def make(*, wanted: int):
        del wanted

    with pytest.raises(ConfigError, match=r"config\.wanted: it needs a value"):
        fields.resolve("config", "it", fields.of_function(make), {})
