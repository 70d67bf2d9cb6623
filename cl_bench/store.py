"""A study's workdir: its lock, the state of its groups, and where to resume them.

    DIR/.lock                     held by the one process that runs the study
    DIR/groups/<group>/           part-00000.parquet ..., checkpoints/, done.json
    DIR/records.parquet           all parts in one file, rebuilt by `records.compact`

The disk is the truth: whatever is damaged or half-written is found by checksum and
done again, with a logged warning.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cl_bench import checkpoints
from cl_bench.atomic import StoreError, read_json, remove_temporaries, write_json
from cl_bench.parts import (
    CorruptPartError,
    part_index,
    part_path,
    part_paths,
    read_part,
)

_log = logging.getLogger(__name__)


class StudyLockedError(StoreError):
    """Another process runs this study."""


class Resume(NamedTuple):
    """Where a group goes on: checkpoint `next_segment`, or the start where it is 0."""

    next_segment: int
    num_parts: int


@contextmanager
def open_study(workdir: str | Path) -> Generator[Path, None, None]:
    """Holds the workdir (made if absent) for this process alone.

    Raises StudyLockedError at once where another process holds it, StoreError where
    the workdir cannot be made or written to. The lock is the kernel's: it goes with the
    process, however it ends.
    """
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be a workdir: {error.strerror}. Choose another one, or "
            "free some space."
        ) from error
    with file:
        _lock(file, folder)
        _sign(file)
        remove_temporaries(folder)
        yield folder


def _lock(file: Any, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise StudyLockedError(
            f"{folder} is in use by {holder}. Wait for it to end, stop it, or choose "
            "another workdir. Nothing was changed."
        ) from error
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be locked ({error.strerror}): its file system has no "
            "locks. Choose a workdir on another one."
        ) from error


def _sign(file: Any) -> None:
    """Who holds the lock, for the one who is refused; on a full disk nobody is told."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()}, started {now}"
    with suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), holder.encode())


def group_dir(workdir: str | Path, group: str) -> Path:
    """The folder of one group, made if absent."""
    folder = Path(workdir) / "groups" / group
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sound_ends(folder: Path) -> list[int]:
    """ends[n] is the segment that the first n parts reach, as far as they are sound."""
    ends = [0]
    while (path := part_path(folder, len(ends) - 1)).exists():
        try:
            part = read_part(path)
        except CorruptPartError as error:
            _log.warning("%s Its chunk will be done again.", error)
            break
        if part.first_segment != ends[-1]:
            _log.warning("%s does not start at segment %d.", path, ends[-1])
            break
        ends.append(part.last_segment)
    return ends


def consistent_resume(group: Path) -> Resume:
    """The newest sound checkpoint whose earlier parts are all sound; clears the rest.

    Later parts, damaged or later checkpoints and half-written files are removed: the
    caller goes on from the returned place and writes the same parts again.
    """
    remove_temporaries(group)
    checkpoints.remove_unfinished(group)
    (group / "done.json").unlink(missing_ok=True)
    resume = _newest_sound(group, _sound_ends(group))
    for path in group.glob("part-[0-9]*"):
        if part_index(path) >= resume.num_parts:
            path.unlink()
    return resume


def _newest_sound(group: Path, ends: list[int]) -> Resume:
    for next_segment in reversed(checkpoints.saved(group)):
        try:
            step = checkpoints.verify(group, next_segment)
        except StoreError as error:
            _log.warning("%s An earlier checkpoint will be used.", error)
        else:
            n = step.num_parts
            if n < len(ends) and ends[n] == step.next_segment == next_segment:
                return Resume(next_segment, n)
            _log.warning("The parts before checkpoint %d are not sound.", next_segment)
        checkpoints.remove(group, next_segment)
    return Resume(0, 0)


def mark_done(group: Path, info: Mapping[str, Any]) -> None:
    """Marks a group as finished with the parts it has now; `info` is kept with it."""
    write_json(group / "done.json", dict(info) | {"num_parts": len(part_paths(group))})


def is_done(group: Path) -> bool:
    """Whether the group is finished and every part it finished with is sound."""
    path = group / "done.json"
    if not path.exists():
        return False
    try:
        num_parts = read_json(path)["num_parts"]
    except (StoreError, KeyError, TypeError) as error:
        _log.warning("The mark of a finished group is damaged: %s", error)
        return False
    return len(_sound_ends(group)) - 1 == num_parts == len(part_paths(group))
