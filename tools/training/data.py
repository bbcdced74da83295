"""Labelled images for training, preprocessed by the runtime itself.

Shapes: B images, C channels, H W image, K outputs.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from edgeport_runtime.accuracy.dataset import read_labelled_images, read_rows
from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Task
    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["DIGITS", "Data", "Split", "digits", "load_data", "make_contract"]

DIGITS = "digits"
_MAX_BYTES = 8 * 2**30  # of preprocessed images, which are kept in memory
_NUM_HELD_OUT_DIGITS = 360


class Split(NamedTuple):
    """Preprocessed images (B, C, H, W) float32, and targets as ``edgeport_models.tasks.loss`` takes them."""

    images: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What a network is trained on, chosen by, and measured on at the end; and the contract that they share."""

    train: Split
    held_out: Split
    test: Split | None
    contract: Contract


def make_contract(task: Task, num_classes: int, labels: tuple[str, ...] | None, spec: PreprocessSpec) -> Contract:
    """The contract of a model that is trained here."""
    thresholds = None if task == "multiclass" else (0.5,)
    return Contract(
        task=task,
        num_classes=num_classes,
        labels=labels,
        thresholds=thresholds,
        output="logits",
        batch=None,
        preprocess=spec,
    )


def load_data(source: str, test: str | None, *, task: Task, spec: PreprocessSpec, held_out: float, seed: int) -> Data:
    """Read, preprocess and split.

    Args:
        source: one folder per class; a CSV with the columns ``path`` and ``labels``; an ``.npz`` with ``x_train``
            (uint8, B H W or B H W C) and ``y_train`` (class numbers; for ``multilabel`` 0 or 1, B K), and optionally
            ``x_test`` and ``y_test``; or ``digits``, scikit-learn's.
        test: another folder or CSV to measure on at the end.
        task: what the targets are.
        spec: the input contract.
        held_out: part of the images that the best epoch is chosen by.
        seed: of the split.

    Raises:
        InputError: if the data cannot be read, or there is too little or too much of it.
    """
    if source == DIGITS or source.endswith(".npz"):
        if test is not None:
            raise InputError("--test is for folders and CSV files; an .npz holds its own x_test and y_test")
        arrays = digits() if source == DIGITS else _read_npz(Path(source), task)
        y_train = arrays["y_train"]
        num_classes = _num_classes(arrays, task, source)
        labels = tuple(map(str, range(10))) if source == DIGITS else None
        contract = make_contract(task, num_classes, labels, spec)
        every = _split(list(arrays["x_train"]), y_train, spec)
        tested = _split(list(arrays["x_test"]), arrays["y_test"], spec) if "x_test" in arrays else None
    else:
        labels = _labels_of(Path(source))
        contract = make_contract(task, 2 if task == "binary" else len(labels), labels, spec)
        every = _read_images(source, contract)
        tested = None if test is None else _read_images(test, contract)
    train, chosen_by = _hold_out(every, held_out, seed)
    return Data(train=train, held_out=chosen_by, test=tested, contract=contract)


def digits() -> dict[str, NDArray[np.uint8]]:
    """scikit-learn's 1,797 digits of 8x8 pixels, 0 to 255, and its held-out part, which does not depend on any seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        images, found.target, test_size=_NUM_HELD_OUT_DIGITS, random_state=0, stratify=found.target
    )
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _num_classes(arrays: dict[str, NDArray[np.uint8]], task: Task, source: str) -> int:
    y_train = arrays["y_train"]
    if task == "multilabel":
        if y_train.ndim != 2:
            raise InputError(f"{source} has one class per image, but --task multilabel needs y_train of 0 or 1, (B, K)")
        return y_train.shape[1]
    num_classes = int(y_train.max()) + 1
    if task == "binary" and num_classes != 2:
        raise InputError(f"{source} has {num_classes} classes, but --task binary needs 2")
    if "y_test" in arrays and arrays["y_test"].max() >= num_classes:
        raise InputError(f"{source}: y_test contains class {arrays['y_test'].max()}, which y_train does not")
    return num_classes


def _read_npz(path: Path, task: Task) -> dict[str, NDArray[np.uint8]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; --data takes one folder per class, a CSV, an .npz or {DIGITS!r}")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("x_train", "y_train", "x_test", "y_test"):
                if f"{name}.npy" in archive.namelist():
                    if archive.getinfo(f"{name}.npy").file_size > _MAX_BYTES:
                        raise InputError(f"{path}: {name} is larger than {_MAX_BYTES / 2**30:.0f} GiB")
                    arrays[name] = np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not an .npz of plain arrays: {error}") from None
    for part in ("train", "test"):
        if part == "test" and not {"x_test", "y_test"} & set(arrays):
            continue
        if not {f"x_{part}", f"y_{part}"} <= set(arrays):
            raise InputError(f"{path} lacks x_{part} or y_{part}")
        _check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"], is_multilabel=task == "multilabel")
    if "y_test" in arrays and arrays["y_test"].shape[1:] != arrays["y_train"].shape[1:]:
        raise InputError(f"{path}: y_test is {arrays['y_test'].shape}, but y_train is {arrays['y_train'].shape}")
    return arrays


def _check_part(path: Path, part: str, x: NDArray[np.uint8], y: NDArray[np.uint8], *, is_multilabel: bool) -> None:
    is_fit = x.dtype == np.uint8 and x.ndim in (3, 4) and np.issubdtype(y.dtype, np.integer)
    if not is_fit or y.ndim not in ((1, 2) if is_multilabel else (1,)) or len(y) != len(x):
        raise InputError(
            f"{path}: x_{part} is {x.dtype} {x.shape} and y_{part} {y.dtype} {y.shape}; images are uint8 (B, H, W) or "
            f"(B, H, W, C), targets whole numbers {'(B, K)' if is_multilabel else '(B,)'}"
        )
    if not y.size or y.min() < 0 or (y.ndim == 2 and y.max() > 1):
        raise InputError(
            f"{path}: y_{part} is empty, or has negative classes, or values other than 0 and 1 for a label"
        )


def _labels_of(path: Path) -> tuple[str, ...]:
    """Names of the classes, sorted: of the folders, or in the CSV."""
    if path.is_dir():
        names = {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
    elif path.is_file():
        names = {name for row in read_rows(path) for name in row.names}
    else:
        raise InputError(f"{path} does not exist; --data takes one folder per class, a CSV, an .npz or {DIGITS!r}")
    if not names:
        raise InputError(
            f"{path} holds no classes; --data takes one folder per class, or a CSV with columns path,labels"
        )
    return tuple(sorted(names))


def _read_images(source: str, contract: Contract) -> Split:
    images = read_labelled_images(source, contract)
    return _split(images.paths, images.targets, contract.preprocess)


def _split(images: Sequence[Path | NDArray[np.uint8]], targets: NDArray[np.int64], spec: PreprocessSpec) -> Split:
    shape = (len(images), *spec.input_shape)
    if 4 * np.prod(shape, dtype=np.int64) > _MAX_BYTES:
        raise InputError(
            f"{len(images)} images of {shape[1:]} take more than {_MAX_BYTES / 2**30:.0f} GiB; train on fewer"
        )
    x_BCHW = np.empty(shape, np.float32)
    for i, image in enumerate(images):
        x_BCHW[i] = preprocess(image, spec)
    return Split(torch.from_numpy(x_BCHW), torch.from_numpy(targets.astype(np.int64)))


def _hold_out(every: Split, part: float, seed: int) -> tuple[Split, Split]:
    num = len(every.targets)
    num_held_out = round(num * part)
    if not 0 < num_held_out < num:
        raise InputError(
            f"--held-out {part} of {num} images leaves nothing to train on, or to choose the best epoch by"
        )
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    held_out, rest = order[:num_held_out], order[num_held_out:]
    return Split(every.images[rest], every.targets[rest]), Split(every.images[held_out], every.targets[held_out])
