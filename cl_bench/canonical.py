"""One text for equal settings: canonical JSON, and short hashes of it."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text."""
    return json.dumps(_jsonable(value), sort_keys=True, separators=(",", ":"))


def digest(value: Any, length: int = 12) -> str:
    """A short hash of a value's canonical JSON, the same in every process."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def identity(stream: Mapping[str, Any]) -> dict[str, Any]:
    """A stream's settings less those that say only where its data lies."""
    return {k: v for k, v in stream.items() if k not in ("data_dir", "download")}


def _jsonable(value: Any) -> Any:
    """Floats that JSON has no word for become strings; the rest stays as it is."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
