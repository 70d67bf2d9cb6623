"""The command line of a study: its overrides and its flags."""

import pytest
from absl import flags

from cl_bench import command_line


def test_overrides_are_split_off_the_command_line():
    rest, overrides = command_line.split_overrides(
        [
            "main",
            "--config=x.py",
            "--config.method.step_size=1e-3",
            "--config.network.widths=(8, 8)",
            "-config.seeds",
            "2",
            "--config.oracle",
            "--workdir=here",
            "--noconfig.execution.compilation_cache",
            "--config.stream.dataset=mnist",
        ]
    )
    assert rest == ["main", "--config=x.py", "--workdir=here"]
    assert overrides == {
        "method.step_size": 1e-3,
        "network.widths": (8, 8),
        "seeds": 2,
        "oracle": True,
        "execution.compilation_cache": False,
        "stream.dataset": "mnist",
    }


def test_the_last_of_two_overrides_counts():
    given = ["main", "--config.seeds=2", "--config.seeds=3"]
    assert command_line.split_overrides(given)[1] == {"seeds": 3}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.methd.name=l2", "Did you mean 'method'"),
        ("--config.method=l2", "config.method: set one key"),
        ("--config.seeds.first=1", "no keys below"),
        ("--config.method.a.b=1", "no keys below"),
    ],
)
def test_an_override_of_nothing_is_refused(flag, message):
    with pytest.raises(ValueError, match=message):
        command_line.split_overrides(["main", flag])


def test_flags():
    values = flags.FlagValues()
    command_line.define_flags(values)
    values(["main", "--config=x.py:smoke", "--methods=l2,backprop", "--benchmarks=a"])
    assert values["config"].value == "x.py:smoke"
    assert values["methods"].value == ["l2", "backprop"]
    assert values["benchmarks"].value == ["a"]
    missing = flags.FlagValues()
    command_line.define_flags(missing)
    with pytest.raises(flags.IllegalFlagValueError, match="config"):
        missing(["main"])
