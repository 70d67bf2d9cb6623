"""Full disks: what the store says, and what is on the disk afterwards."""

import errno
import os
import sys

import pytest

from cl_bench import atomic, parts
from cl_bench.atomic import StoreError
from tests import store_setting
from tests.store_setting import start, write_chunk

group = store_setting.group


def test_disk_full_names_the_path_and_keeps_the_earlier_parts(group, monkeypatch):
    write_chunk(group, 0, checkpoint=False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        write_chunk(group, 1, checkpoint=False)
    text = str(caught.value)
    assert "part-00001.sha256: No space left on device" in text
    assert "1 earlier parts of this group are intact" in text
    names = sorted(p.name for p in group.iterdir())
    assert names == ["part-00000.parquet", "part-00000.sha256"]
    parts.read_part(parts.part_path(group, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits as on Linux")
def test_real_write_failures_of_parts_checkpoints_and_records(tmp_path):
    writer = start(
        """
        import resource, sys
        import numpy as np
        from cl_bench import checkpoints, parts, records, store
        from cl_bench.atomic import StoreError
        group = store.group_dir(sys.argv[1], "g")
        noise = np.random.default_rng(0).random(4096)
        small = {"a": noise[:8].astype("float32")}
        parts.write_part(group, 0, small, 0, 1)
        checkpoints.save(group, 1, 1, small)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for write in (
            lambda: parts.write_part(group, 1, {"a": noise}, 1, 2),
            lambda: checkpoints.save(group, 2, 2, {"a": noise.astype("float32")}),
        ):
            try:
                write()
            except StoreError as error:
                print("REFUSED", str(error).replace(chr(10), " "))
        print("RESUME", tuple(store.consistent_resume(group)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 4096))
        try:
            records.compact(sys.argv[1])
        except StoreError as error:
            print("REFUSED", error)
        """,
        tmp_path,
    )
    output, _ = writer.communicate(timeout=120)
    lines = [t for t in output.splitlines() if t.startswith(("REFUSED", "RESUME"))]
    assert len(lines) == 4, output
    assert "part-00001.parquet" in lines[0] and "File too large" in lines[0]
    assert "step-00000002" in lines[1] and "Earlier checkpoints" in lines[1]
    assert lines[2] == "RESUME (1, 1)"
    assert "records.parquet" in lines[3] and "All parts are intact" in lines[3]
    assert not list(tmp_path.rglob(".*.tmp"))
