"""Where a machine keeps what it found out about a bundle; the file name changes with whatever that depends on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.bundle.files import bundle_file
from edgeport_runtime.bundle.manifest import MANIFEST_NAME
from edgeport_runtime.engine.machine import describe_machine, instruction_sets
from edgeport_runtime.engine.packages import ENGINES, versions_of
from edgeport_runtime.loading.choice import read_json

if TYPE_CHECKING:
    from edgeport_runtime.bundle.manifest import Variant

__all__ = [
    "PREPARED_MODEL",
    "PREPARED_RECORD",
    "Tuned",
    "cache_folder",
    "cache_path",
    "find_prepared",
    "find_tuned",
    "findings_file",
    "new_cache_path",
    "outdated",
    "stamp_of",
]

PREPARED_MODEL, PREPARED_RECORD = "model.onnx", "prepared.json"
_MAX_THREADS = 4096
_HALF_WRITTEN_S = 3600  # younger ones may be another process's at work


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What ran fastest on this machine.

    Attributes:
        variant: by name.
        device: by name.
        threads: None for ONNX Runtime's choice.
    """

    variant: str
    device: str
    threads: int | None

    def __str__(self) -> str:
        """For a person, such as ``int8 on cpu, 2 threads``."""
        threads = "" if self.threads is None else f", {self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.variant} on {self.device}{threads}"


def cache_folder() -> Path:
    """``EDGEPORT_CACHE``, or the user's cache folder. It may vanish."""
    own = os.environ.get("EDGEPORT_CACHE")
    if own:
        return Path(own) / "tuned"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  Path.home() raises for a user who has none
    if not home.is_absolute():
        home = Path(os.devnull)  # no folder: nothing is found there, and nothing can be kept
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "edgeport" / "tuned"


def cache_path(bundle: Path) -> Path | None:
    """Path, without a suffix, for this bundle, this machine and these versions of the packages.

    None where nothing was ever kept for this bundle: then neither the machine nor the packages need be looked at.
    """
    start = _start(bundle)
    try:
        is_known = any(cache_folder().glob(f"{start}-*"))
    except OSError:
        return None
    return cache_folder() / _name(start) if is_known else None


def new_cache_path(bundle: Path) -> Path:
    """As ``cache_path``, to keep something for the first time.

    Raises:
        OSError: if the folder cannot be made.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    return cache_folder() / _name(_start(bundle))


def findings_file(path: Path) -> Path:
    """Where the findings are, beside what is prepared."""
    return path.with_name(f"{path.name}.json")


def outdated(path: Path) -> list[Path]:
    """What is kept for the same bundle and machine and other versions of the packages, or was left half-written."""
    prefix, _, _ = path.name.rpartition("-")
    long_ago = time.time() - _HALF_WRITTEN_S
    return [
        other
        for other in path.parent.glob(f"{prefix}-*")
        if not other.name.startswith(path.name) or (".part" in other.name and other.lstat().st_mtime < long_ago)
    ]


def find_tuned(bundle: Path) -> Tuned | None:
    """What ``tune`` found for this bundle, this machine and these package versions, if it was ever asked."""
    key = cache_path(bundle)
    if key is None:
        return None
    found = read_json(findings_file(key))
    try:
        winner = Tuned(**found["winner"])
    except (KeyError, TypeError):
        return None  # never tuned, or damaged
    threads = winner.threads
    is_number = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= _MAX_THREADS
    are_names = isinstance(winner.variant, str) and isinstance(winner.device, str)
    return winner if are_names and (threads is None or is_number) else None


def find_prepared(bundle: Path, variant: Variant) -> Path | None:
    """The variant's model as ``prepare`` keeps it, if its files have their sizes and the bundle's are those it is of.

    The bundle's files are then neither read nor hashed: their sizes and times of change stand for them.

    Raises:
        ManifestError: if the bundle's file is missing.
    """
    folder = cache_path(bundle)
    if folder is None:
        return None
    record = read_json(folder / PREPARED_RECORD)
    source = stamp_of(bundle, variant)
    try:
        if record["variant"] != variant.name or record["source"] != source:
            return None
        # A file cut short would be mapped beyond its end.
        sizes = {name: (folder / name).stat().st_size for name in record["files"]}
        return folder / PREPARED_MODEL if PREPARED_MODEL in sizes and sizes == record["files"] else None
    except (OSError, KeyError, TypeError, ValueError):
        return None  # never prepared, or damaged


def stamp_of(bundle: Path, variant: Variant) -> list[list[int]]:
    """Size and time of change of a variant's files, which stand for their content.

    Raises:
        ManifestError: if one is missing.
    """
    files = [variant.file] if variant.data is None else [variant.file, variant.data.file]
    statuses = [bundle_file(bundle, name).stat() for name in files]
    return [[status.st_size, status.st_mtime_ns] for status in statuses]


def _start(bundle: Path) -> str:
    return hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()[:16]


def _name(start: str) -> str:
    versions = versions_of(("edgeport", *ENGINES))
    machine = [describe_machine(), sorted(instruction_sets() or ())]
    parts = (hashlib.sha256(json.dumps(part, sort_keys=True).encode()) for part in (machine, versions))
    return "-".join([start, *(part.hexdigest()[:16] for part in parts)])
