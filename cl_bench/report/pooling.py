"""Workdirs that hold further seeds of a study: one study, with the runs of all."""

import numpy as np
import pyarrow as pa

from cl_bench.report.studies import Run, Study


def pooled(studies: list[Study]) -> list[Study]:
    """Studies of one name and with the same arms, but for the seeds, are one study.

    They share an arm, no run, and every arm of one name has the same settings. Its
    workdir and config are those of the first. Order: that of the first parts.
    """
    found: list[Study] = []
    for study in studies:
        for i, other in enumerate(found):
            if _are_parts(other, study):
                found[i] = _together(other, study)
                break
        else:
            found.append(study)
    return found


def _are_parts(one: Study, other: Study) -> bool:
    if one.name != other.name or _ids(one) & _ids(other):
        return False
    if _precision(one) != _precision(other):  # of every product: another result
        return False
    own, its = _arms(one), _arms(other)
    shared = own.keys() & its.keys()
    return bool(shared) and all(own[arm] == its[arm] for arm in shared)


def _precision(study: Study) -> str | None:
    return study.config.get("config", {}).get("matmul_precision")


def _ids(study: Study) -> set[str]:
    return {run.run_id for run in study.runs}


def _arms(study: Study) -> dict[tuple[str, str], list[dict]]:
    """(benchmark, arm) -> its settings: a list, as one label may cover several."""
    found: dict[tuple[str, str], list[dict]] = {}
    for run in study.runs:
        every = found.setdefault((run.benchmark, run.arm), [])
        if run.settings not in every:
            every.append(run.settings)
    return found


def _together(one: Study, other: Study) -> Study:
    """The runs of one, then those of the other; a group's name gets its workdir's."""
    tasks = max(one.num_tasks, other.num_tasks)
    index = [_index(one, tasks, 0), _index(other, tasks, len(one.runs))]
    suffix = f" ({other.workdir.name})"
    runs = [_renamed(run, suffix) for run in other.runs]
    groups = {key + suffix: group for key, group in other.groups.items()}
    return one._replace(
        groups=one.groups | groups,
        runs=one.runs + runs,
        metrics=list(dict.fromkeys([*one.metrics, *other.metrics])),
        num_tasks=tasks,
        records=pa.concat_tables([one.records, other.records], promote_options="default"),
        index=np.concatenate(index),
    )  # fmt: skip


def _index(study: Study, tasks: int, first: int) -> np.ndarray:
    row, task = np.divmod(study.index, study.num_tasks)
    return (row + first) * tasks + task


def _renamed(run: Run, suffix: str) -> Run:
    return run._replace(group=run.group + suffix)
