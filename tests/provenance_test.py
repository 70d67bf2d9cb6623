"""A workdir knows what made it, and refuses what did not."""

import json
import logging
import math
import subprocess
import sys
import time
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from cl_bench import provenance
from cl_bench.atomic import StoreError, canonical_json, jsonable, write_json


def test_collect_is_complete_and_json():
    found = json.loads(json.dumps(jsonable(provenance.collect())))
    assert found["versions"]["jax"][0].isdigit()
    assert set(found["versions"]) == {"python", *provenance.PACKAGES}
    assert found["device"]["count"] >= 1 and found["device"]["cpu"]
    assert found["start_time"].startswith("20")
    assert found["command_line"] == sys.argv
    assert found["matmul_precision"]


def test_absent_git_repository_package_and_cpuinfo_do_not_fail(tmp_path, monkeypatch):
    assert provenance.git_state(tmp_path) is None
    assert provenance.cpu_model(tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    found = provenance.collect()
    assert found["git"] is None and found["versions"]["no-such-package"] is None


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def test_git_commit_and_dirty_flag(tmp_path):
    package = tmp_path / "cl_bench"
    (package / "inner").mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    _git(tmp_path, "init", "-q")
    assert provenance.git_state(package) == {"commit": None, "dirty": False}
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    state = provenance.git_state(package)
    assert state is not None and len(state["commit"]) == 40 and not state["dirty"]
    (package / "a.py").write_text("2\n")
    changed = provenance.git_state(package)
    assert changed == {"commit": state["commit"], "dirty": True}
    # A package installed somewhere inside another repository is not its checkout.
    assert provenance.git_state(package / "inner") is None


def test_same_config_resumes_and_another_is_refused(tmp_path):
    config = {"study": "s", "stream": {"num_tasks": 400, "x": math.nan}, "a": (1, 2)}
    assert provenance.lock_config(tmp_path, config, command_line=["x"]) is False
    assert provenance.lock_config(tmp_path, config, command_line=["y"]) is True
    before = (tmp_path / "config.json").read_bytes()
    other = config | {"stream": {"num_tasks": 800, "x": math.nan}, "new": 1}
    with pytest.raises(provenance.ConfigChangedError) as caught:
        provenance.lock_config(tmp_path, other)
    text = str(caught.value)
    assert "stream.num_tasks: 400 -> 800" in text and "new: absent -> 1" in text
    assert "stream.x" not in text and "study:" not in text
    assert "another workdir" in text
    assert (tmp_path / "config.json").read_bytes() == before


def test_config_dict_equals_its_plain_form(tmp_path):
    plain = {"a": {"b": [1, 2]}, "c": 0.5}
    provenance.lock_config(tmp_path, ml_collections.ConfigDict(plain).to_dict())
    again = {"c": np.float64(0.5), "a": ml_collections.ConfigDict({"b": (1, 2)})}
    assert provenance.lock_config(tmp_path, again) is True


def test_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {')
    with pytest.raises(StoreError, match="config.json is damaged"):
        provenance.lock_config(tmp_path, {})


def test_long_lists_of_differences_are_cut():
    old, new = ({str(i): i + shift for i in range(30)} for shift in (0, 1))
    lines = provenance.differences(old, new)
    assert len(lines) == 21 and lines[-1] == "... and 10 more"


def test_resuming_elsewhere_warns_and_keeps_both(tmp_path, caplog, monkeypatch):
    provenance.record_start(tmp_path, lane_width=4)
    with caplog.at_level(logging.WARNING):
        provenance.record_start(tmp_path)
    assert caplog.text == ""
    first = provenance.collect()
    changed = first | {"versions": first["versions"] | {"jax": "9.9"}}
    monkeypatch.setattr(provenance, "collect", lambda: changed)
    with caplog.at_level(logging.WARNING):
        provenance.record_start(tmp_path)
    assert "versions.jax" in caplog.text and "9.9" in caplog.text
    assert "bit-identical" in caplog.text
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["lane_width"] == 4
    assert [e["versions"]["jax"] == "9.9" for e in content["resumed"]] == [False, True]


def test_the_end_goes_to_the_process_that_ended(tmp_path):
    provenance.record_start(tmp_path)
    provenance.record_end(tmp_path, time.monotonic() - 3, runs=2)
    provenance.record_start(tmp_path)
    provenance.record_end(tmp_path, time.monotonic() - 50)
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert 3 <= content["wall_seconds"] < 40 and content["runs"] == 2
    assert content["resumed"][0]["wall_seconds"] >= 50
    assert content["resumed"][0]["end_time"] >= content["end_time"]


def test_json_is_canonical_and_safe(tmp_path):
    left = {"b": np.float32(1.5), "a": {3, 1}, "n": math.nan, "i": -math.inf}
    right = {"i": "-inf", "n": "nan", "a": [1, 3], "b": 1.5}
    assert canonical_json(left) == canonical_json(right)
    write_json(tmp_path / "x.json", left)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text)["n"] == "nan"
    assert text.index('"a"') < text.index('"b"') < text.index('"i"')
    with pytest.raises(TypeError, match=r"value\.a\[1\] is a object"):
        canonical_json({"a": [1, object()]})
