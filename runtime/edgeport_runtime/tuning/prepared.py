"""Stores a model as ONNX Runtime reworks it at every load, so that its weights are mapped, not read and repacked.

``run-model tune`` writes it; nothing depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.bundle.files import bundle_file, check_digests
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.session import Session, save_optimized
from edgeport_runtime.loading.cache import PREPARED_MODEL, PREPARED_RECORD, stamp_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeport_runtime.bundle.manifest import Variant
    from edgeport_runtime.engine.session import SessionSettings

__all__ = ["prepare"]

_LOADS, _LEAST_GAIN_MS = 3, 30.0  # finding what was kept takes half of that


def prepare(bundle: Path, variant: Variant, *, settings: SessionSettings, target: Path) -> dict[str, Any] | None:
    """Keep a variant as the CPU provider optimized it, if that loads faster and gives the same bits.

    Args:
        bundle: the folder.
        variant: one of its variants.
        settings: the settings that it is loaded with.
        target: the folder to make; an earlier one is replaced.

    Returns:
        ``load_ms`` and ``prepared_ms`` (medians), and ``size_bytes``; None if it is not kept.

    Raises:
        ManifestError: if the variant's files are missing or altered.
        OSError: if the folder cannot be written.
        SessionError: if ONNX Runtime cannot write into it.
    """
    file, source = bundle_file(bundle, variant.file), stamp_of(bundle, variant)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.part"))
    try:
        save_optimized(file, part / PREPARED_MODEL, settings=settings)
        times: dict[Path, list[float]] = {file: [], part / PREPARED_MODEL: []}
        outputs: dict[Path, NDArray[np.float32]] = {}
        for _ in range(_LOADS):
            for path, taken in times.items():
                start = time.perf_counter()
                session = Session(path, provider=CPU, settings=settings)
                taken.append(1e3 * (time.perf_counter() - start))
                outputs[path] = session.run(_noise(session))
        before, after = (statistics.median(taken) for taken in times.values())
        check_digests(bundle, variant)  # what was read meanwhile is what was exported
        if stamp_of(bundle, variant) != source or before - after < _LEAST_GAIN_MS:
            return None
        if not np.array_equal(outputs[file], outputs[part / PREPARED_MODEL]):
            return None
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        record = {"variant": variant.name, "source": source, "files": sizes}
        (part / PREPARED_RECORD).write_text(json.dumps(record))
        for path in part.iterdir():  # only sizes are looked at later: a loss of power must not leave empty pages
            with path.open("rb") as written:
                os.fsync(written.fileno())
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"load_ms": round(before, 1), "prepared_ms": round(after, 1), "size_bytes": sum(sizes.values())}


def _noise(session: Session) -> NDArray[np.float32]:
    shape = [size if isinstance(size, int) else 1 for size in session.input_shape]
    return np.random.default_rng(0).standard_normal(shape, np.float32)
