"""How the command starts: its help, the devices of JAX, the threads of the SVD."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cl_bench import main
from tests import small_study


def test_help_lists_every_flag():
    process = subprocess.run(
        [sys.executable, "-m", "cl_bench.main", "--help"],
        cwd=small_study.ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    own = ["config", "workdir", "methods", "benchmarks", "[no]dry_run", "[no]report"]
    for name in own:
        assert f"\n  --{name}: " in process.stdout
    assert "python -m cl_bench.main --config=experiments/x.py" in process.stdout


def test_resuming_takes_as_many_devices_as_the_study_has(tmp_path, monkeypatch):
    set_to: dict[str, Any] = {}
    monkeypatch.setattr("jax.config.update", set_to.__setitem__)
    monkeypatch.setattr(main, "_cores", lambda: 2)
    execution = {"devices": 0, "matmul_precision": "high", "compilation_cache": False}
    main.start_jax(execution, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 2
    plan = Path(tmp_path / "groups" / "g" / "plan.json")
    plan.parent.mkdir(parents=True)
    plan.write_text('{"devices": 6, "strategy": "map", "width": 12}')
    main.start_jax(execution, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 6
    main.start_jax(execution | {"devices": 3}, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 3


def test_svd_threads_are_set_before_scipy_is_loaded():
    code = (
        "import sys, pathlib; from cl_bench import main; early = 'scipy' not in sys.modules;"
        "main.start_jax({'devices': 1, 'matmul_precision': 'high',"
        " 'compilation_cache': False}, pathlib.Path('nowhere'));"
        "import os; print(early, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        command, env_of = [sys.executable, "-c", code], env | given
        found = subprocess.run(command, check=True, env=env_of, capture_output=True)
        assert found.stdout.split() == [b"True", expected.encode()]
