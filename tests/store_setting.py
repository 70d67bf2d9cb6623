"""What the tests of the store share: a group, its chunks, a process of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cl_bench import checkpoints, parts, store

ROOT = Path(__file__).resolve().parent.parent


def rows(first: int, last: int) -> dict[str, np.ndarray]:
    return {"segment": np.arange(first, last), "score": np.arange(first, last) / 7}


def write_chunk(group: Path, index: int, checkpoint: bool = True) -> None:
    """Chunk `index` of a run whose chunks are two segments."""
    end = 2 * index + 2
    parts.write_part(group, index, rows(end - 2, end), end - 2, end)
    if checkpoint:
        checkpoints.save(group, end, index + 1, {"w": np.full(3, end, np.float32)})


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own; its stdout alone is piped, for threads print to stderr."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def group(tmp_path: Path) -> Path:
    return store.group_dir(tmp_path, "g")
