"""Checkpoints and logits of other libraries, each written once a session by the library itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def written_by(
    shared: Callable[[str], Path], peer: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder that ``<library>_reference.py`` has filled, in a process of its own that finds the library."""
    done: dict[str, Path] = {}

    def write(library: str) -> Path:
        if library not in done:
            search = [peer(library), peer("torchvision"), shared("peers")]
            if library == "transformers":  # it would take the torchvision that its other half does not fit
                search = search[:1]
            folder = tmp_path_factory.mktemp(library)
            result = subprocess.run(
                [sys.executable, Path(__file__).with_name(f"{library}_reference.py"), folder],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search))},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            done[library] = folder
        return done[library]

    return write
