"""Sharded safetensors: an index that names, for each key, the file beside it that holds the tensor."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INDEX_SUFFIX", "read_index", "read_json", "shard_names"]

INDEX_SUFFIX = ".safetensors.index.json"
_MAX_JSON_BYTES = 16 * 2**20
_SHARD = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object.

    Raises:
        WeightsError: naming the file, if it cannot be read, is too large, damaged, or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise WeightsError(f"{path} is larger than {_MAX_JSON_BYTES} bytes; it cannot be a description")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON, or is damaged ({error})") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a JSON object, but of type {type(content).__name__}")
    return content


def read_index(path: Path) -> dict[str, str]:
    """Key to the name of its shard, a plain file name.

    Raises:
        WeightsError: if the index is damaged or names a file elsewhere.
    """
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{path}: weight_map is not an object from keys to files")
    for key, name in shards.items():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise WeightsError(f"{path}: weight_map of {key!r} is {name!r}, not a .safetensors file in the same folder")
    return shards


def shard_names(index: Path) -> list[str]:
    """The files that an index names, sorted; raises as ``read_index``."""
    return sorted(set(read_index(index).values()))
