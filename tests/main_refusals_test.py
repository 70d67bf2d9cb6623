"""What the command refuses: mistakes, missing data, bad workdirs, a full disk."""

import errno
import re

import jax
import pytest

from cl_bench import atomic, store
from cl_bench.datasets._source import MissingDatasetError
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from tests import small_study

cache = small_study.cache
cli = small_study.cli
experiment = small_study.experiment


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config.method.step_sise=0.1"], "Did you mean 'step_size'"),
        (["--config.metod.step_size=0.1"], "Did you mean 'method'"),
        (["--config.method.step_size=fast"], "step_size = 'fast': expected a number"),
        (["--config.method.step_size=nan"], "step_size"),
        (["--config.method.name=backprob"], "Did you mean 'backprop'"),
        (["--methods=backprop,contnual_backprop"], "Did you mean 'continual_backprop'"),
        (["--methods=adam"], "no method: --config.method.optimizer=adam"),
        (["--methods=random"], "Module 'random' has no function 'make'"),  # Python's
        (["--config.stream.name=permutted"], "Did you mean 'permuted'"),
        (["--config.network.activation=rellu"], "'relu'"),
        (["--config.metrics=online_acuracy"], "Did you mean 'online_accuracy'"),
        (["--config.stream.num_tasks=0"], "num_tasks = 0: expected at least 1"),
        (["--config.execution.lanes=mapp"], "Did you mean 'map'"),
        (["--benchmarks=smal"], "No experiment 'smal'"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    cli, experiment, tmp_path, args, message
):
    workdir = tmp_path / "out"
    with pytest.raises((UnknownNameError, ConfigError), match=re.escape(message)):
        cli(f"--config={experiment}", f"--workdir={workdir}", *args)
    assert not workdir.exists()


def test_a_mistake_ends_the_command_without_a_traceback(cache, experiment, tmp_path):
    process = small_study.start(
        cache, f"--config={experiment}", f"--workdir={tmp_path / 'out'}",
        "--config.method.step_sise=0.1",
    )  # fmt: skip
    code, out, err = small_study.finish(process)
    assert code == 1 and out == "" and "Traceback" not in err
    assert err.startswith("cl_bench: config.method.step_sise: ") and "step_size" in err
    assert not (tmp_path / "out").exists()


def test_a_config_file_that_raises_shows_its_own_traceback(cache, tmp_path):
    broken = small_study.write(tmp_path, "def get_config():\n    return {}['seven']\n")
    process = small_study.start(
        cache, f"--config={broken}", f"--workdir={tmp_path / 'out'}"
    )
    code, _, err = small_study.finish(process)
    assert code == 1 and f'File "{broken}", line 2, in get_config' in err
    assert err.rstrip().endswith("KeyError: 'seven'")
    assert not (tmp_path / "out").exists()


def test_a_missing_data_set_is_named_at_once(cli, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delattr(jax.stages.Lowered, "compile")  # it would be too late by then
    with pytest.raises(MissingDatasetError) as error:
        cli(
            f"--config={experiment}", f"--workdir={tmp_path / 'out'}",
            "--config.stream.dataset=mnist", "--config.stream.dataset_options={}",
        )  # fmt: skip
    for part in ("'mnist'", str(tmp_path / "sets"), "download mnist", "TFDS_DATA_DIR"):
        assert part in str(error.value)
    assert "Did you mean" not in str(error.value)  # the name is right
    with pytest.raises(MissingDatasetError, match="mean 'mnist'.*download mnist`"):
        cli(
            f"--config={experiment}", f"--workdir={tmp_path / 'out'}",
            "--config.stream.dataset=mnits", "--config.stream.dataset_options={}",
        )  # fmt: skip
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("below", ["", "out"])
def test_a_workdir_that_cannot_be(cli, experiment, tmp_path, below):
    (tmp_path / "place").write_text("a file")
    workdir = tmp_path / "place" / below
    with pytest.raises(atomic.StoreError, match="cannot be a workdir: .*another one"):
        cli(f"--config={experiment}", f"--workdir={workdir}")


def test_a_disk_that_is_full_in_any_other_place(cli, experiment, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "groups")

    monkeypatch.setattr(store, "group_dir", full)
    with pytest.raises(atomic.StoreError, match="groups: No space left.*same command"):
        cli(f"--config={experiment}", f"--workdir={tmp_path / 'out'}")
    monkeypatch.setattr(store, "group_dir", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        cli(f"--config={experiment}", f"--workdir={tmp_path / 'out'}")


def test_workdir_or_dry_run_is_needed(cli, experiment):
    with pytest.raises(Exception, match="Give --workdir=DIR"):
        cli(f"--config={experiment}")
