"""Images for calibration: a user's folder, or a small synthetic set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_export.parity.inputs import synthetic_image
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["BUILTIN", "MAX_UNREADABLE", "CalibrationImages"]

BUILTIN = "builtin"
MAX_UNREADABLE = 0.05
_NUM_BUILTIN = 32
_BATCH = 8
_FIRST_SEED = 1000  # the golden images are drawn from other numbers


class CalibrationImages:
    """Images, preprocessed as the bundle's contract says, a batch at a time and again on every pass.

    Args:
        folder: searched recursively; ``builtin`` makes 32 synthetic images.
        contract: its preprocessing and its batch.
        seed: of the synthetic images.
        on_progress: called with (images done, images in all) on every pass.

    Raises:
        InputError: if the folder is missing or holds no image.
    """

    def __init__(
        self,
        folder: Path | str,
        contract: Contract,
        *,
        seed: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.is_builtin = folder == BUILTIN
        self._contract = contract
        self._seed = seed
        self._paths = [] if self.is_builtin else self._find(folder)
        self._unreadable: dict[Path, str] = {}
        self._on_progress = on_progress

    @staticmethod
    def _find(folder: Path | str) -> list[Path]:
        try:
            return find_images(folder)
        except InputError as error:
            raise InputError(
                f"--calibration: {error}; give a folder of images as the model will see them, without labels, "
                f"or use --calibration {BUILTIN} for synthetic images"
            ) from None

    def __len__(self) -> int:
        return _NUM_BUILTIN if self.is_builtin else len(self._paths)

    @property
    def images(self) -> list[Path]:
        """The files that could be decoded; known after the first pass."""
        return [path for path in self._paths if path not in self._unreadable]

    @property
    def num_unreadable(self) -> int:
        """Files that could not be decoded and were left out; known after the first pass."""
        return len(self._unreadable)

    def batches(self, size: int = _BATCH) -> Iterator[NDArray[np.float32]]:
        """Preprocessed images (B, C, H, W) in their order; the last batch may be smaller.

        With a fixed batch in the contract every batch has that size; the last one is filled up with its first image.

        Raises:
            InputError: if more than 5% of the files cannot be read.
        """
        size = self._contract.batch or size
        pending: list[NDArray[np.float32]] = []
        for done, x_CHW in enumerate(self._images()):
            if x_CHW is not None:
                pending.append(x_CHW)
            if len(pending) == size:
                yield np.stack(pending)
                pending.clear()
            if self._on_progress is not None:
                self._on_progress(done + 1, len(self))
        if pending:
            missing = size - len(pending) if self._contract.batch else 0
            yield np.stack(pending + pending[:1] * missing)

    def describe(self) -> dict[str, Any]:
        """For the manifest: how many images of what kind; no path of the build machine."""
        kind = "synthetic" if self.is_builtin else "images"
        return {"source": kind, "num_images": len(self) - self.num_unreadable, "num_unreadable": self.num_unreadable}

    def _images(self) -> Iterator[NDArray[np.float32] | None]:
        spec = self._contract.preprocess
        if self.is_builtin:
            for i in range(_NUM_BUILTIN):
                yield preprocess(synthetic_image(spec, self._seed, _FIRST_SEED + i), spec)
            return
        for path in self._paths:
            if path in self._unreadable:
                continue
            try:
                yield preprocess(path, spec)
            except InputError as error:
                self._unreadable[path] = str(error)
                self._check_unreadable()
                yield None

    def _check_unreadable(self) -> None:
        if self.num_unreadable > MAX_UNREADABLE * len(self):
            raise InputError(
                f"--calibration: {self.num_unreadable} of {len(self)} images cannot be read, more than "
                f"{MAX_UNREADABLE:.0%}; the last error: {list(self._unreadable.values())[-1]}"
            )
