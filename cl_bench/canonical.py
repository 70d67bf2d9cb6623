"""Short hashes of settings, by their canonical JSON (`atomic.canonical_json`)."""

import hashlib
from collections.abc import Mapping
from typing import Any

from cl_bench.atomic import canonical_json


def digest(value: Any, length: int = 12) -> str:
    """A short hash of a value's canonical JSON, the same in every process."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def identity(stream: Mapping[str, Any]) -> dict[str, Any]:
    """A stream's settings less those that say only where its data lies."""
    return {k: v for k, v in stream.items() if k not in ("data_dir", "download")}
