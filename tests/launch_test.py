"""One group on its way to disk: plans, lane batches, diverged lanes, memory."""

import gc
import itertools
from pathlib import Path

import chex
import numpy as np
import pytest

from cl_bench import atomic, checkpoints, config, launch, parts, study
from cl_bench.progress import Progress
from tests import small_study


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_study.compile_once(monkeypatch)
        yield


@pytest.fixture
def cfg(tmp_path):
    return small_study.settings(tmp_path)


def lane(workdir: Path, run_id: str) -> dict[str, np.ndarray]:
    table = small_study.rows(workdir)
    mine = np.array(table["run_id"].to_pylist()) == run_id
    numbers = [c for c in table.column_names if table[c].type != "string"]
    return {name: table[name].to_numpy()[mine] for name in numbers}


def test_a_diverged_lane_is_recorded_and_stays_alone(cfg, tmp_path):
    lanes = {}
    for name, middle in (("with", 1e30), ("without", 0.03)):
        cfg.method.step_size = [0.01, middle, 0.02]
        cfg.seeds = 1
        small_study.launch_all(cfg, tmp_path / name)
        ids = [run.run_id for run in study.expand(cfg)]
        lanes[name] = [lane(tmp_path / name, run_id) for run_id in ids]
    (group,) = study.group(study.expand(cfg))
    assert len(group.runs) == 3  # one program
    assert (lanes["with"][1]["diverged"] == 1).all()
    assert (lanes["without"][1]["diverged"] == 0).all()
    for i in (0, 2):
        chex.assert_trees_all_equal(lanes["with"][i], lanes["without"][i])
        assert (lanes["with"][i]["diverged"] == 0).all()


def test_lane_batches_resume_and_agree_with_one_program(cfg, tmp_path):
    cfg.seeds = 5
    small_study.launch_all(cfg, tmp_path / "whole")
    cfg.execution.lane_width = 2
    for chunks in (5, 16):  # stopped inside the first and inside the second batch
        with pytest.raises(launch.Stopped):
            small_study.launch_all(cfg, tmp_path / "batches", stop_after=chunks)
    small_study.launch_all(cfg, tmp_path / "batches")
    folders = sorted((tmp_path / "batches" / "groups").iterdir())
    widths = [atomic.read_json(f / "group.json")["lanes"] for f in folders]
    assert widths == [2, 2, 1] and all((f / "done.json").exists() for f in folders)
    for run in study.expand(cfg):
        chex.assert_trees_all_close(
            lane(tmp_path / "whole", run.run_id),
            lane(tmp_path / "batches", run.run_id),
            rtol=1e-5,
        )


def test_an_automatic_plan_is_written_and_a_resume_keeps_it(cfg, tmp_path, monkeypatch):
    cfg.execution.lanes, cfg.seeds = "auto", 3
    chosen = []
    monkeypatch.setattr(
        launch.execute, "fastest", lambda *_: chosen.append("vmap") or "vmap"
    )
    small_study.launch_all(cfg, tmp_path / "whole")
    with pytest.raises(launch.Stopped):
        small_study.launch_all(cfg, tmp_path / "stopped", stop_after=4)
    monkeypatch.setattr(launch.execute, "fastest", lambda *_: "map")
    cfg.execution.devices = 1  # what the command says now does not count either
    small_study.launch_all(cfg, tmp_path / "stopped")
    assert chosen == ["vmap", "vmap"]
    (plan,) = (tmp_path / "stopped").glob("groups/*/plan.json")
    assert atomic.read_json(plan) == {"strategy": "vmap", "width": 3, "devices": 2}
    facts = atomic.read_json(plan.with_name("group.json"))
    assert facts["strategy"] == "vmap" and facts["devices"] == 2
    assert small_study.bits(tmp_path / "stopped") == small_study.bits(
        tmp_path / "whole"
    )


def test_auto_times_both_strategies_on_a_processor(cfg, tmp_path):
    cfg.execution.lanes, cfg.seeds = "auto", 3
    small_study.launch_all(cfg, tmp_path / "out")
    (plan,) = (tmp_path / "out").glob("groups/*/plan.json")
    assert atomic.read_json(plan)["strategy"] in ("vmap", "map")


def test_times_and_costs_add_up_over_a_resume(cfg, tmp_path):
    with pytest.raises(launch.Stopped):
        small_study.launch_all(cfg, tmp_path / "out", stop_after=4)
    (path,) = (tmp_path / "out").glob("groups/*/group.json")
    first = atomic.read_json(path)
    small_study.launch_all(cfg, tmp_path / "out")
    last = atomic.read_json(path)
    assert 0 < first["lane_segments"] < last["lane_segments"] == 2 * 4 * 3
    assert 0 < first["wall_seconds"] < last["wall_seconds"]
    assert first["flops_per_step"] == last["flops_per_step"] > 0
    done = atomic.read_json(path.with_name("done.json"))
    assert done == {"lanes": 2, "num_parts": 12}


def test_a_stop_before_the_first_chunk_costs_no_compilation(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(launch.execute, "compile_group", None)
    (group,) = study.group(study.expand(cfg))
    options = config.settings(cfg)["execution"]
    with pytest.raises(launch.Stopped) as stopped:
        launch.run_study_group(group, tmp_path, options, Progress(), lambda: 15)
    assert stopped.value.signal == 15


def test_memory_does_not_grow_with_the_number_of_tasks(tmp_path, monkeypatch):
    """Resident memory after 200 of 800 tasks, and at their end, saving all the time."""
    cfg = small_study.settings(tmp_path, "800")
    cfg.execution.checkpoint_seconds = 0.1
    monkeypatch.setattr(checkpoints, "save", lambda *_: None)  # slow, and not ours
    (group,) = study.group(study.expand(cfg))
    resident: list[int] = []
    calls = itertools.count()

    def stopping() -> int:
        if next(calls) % 300 == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * 4096)
        return 0

    options = config.settings(cfg)["execution"]
    with open("/dev/null", "w") as quiet:
        launch.run_study_group(group, tmp_path, options, Progress(quiet), stopping)
    assert len(resident) == 9  # 2400 chunks
    assert len(parts.part_paths(tmp_path / "groups" / group.key)) > 3
    # Kept rows alone would be 3 MB; without a leak it is 0.2 MB.
    assert resident[-1] - resident[2] < 2e6, resident
