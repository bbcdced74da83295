"""Labelled images: one folder per class, or a CSV of paths and labels. Shapes: B images, K outputs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import find_images

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract

__all__ = ["LabelledImages", "read_labelled_images"]

_SEPARATOR = ";"
_COLUMNS = "path,labels"
_DATA = f"--data takes a folder with one folder of images per class, or a CSV with the columns {_COLUMNS}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImages:
    """Images and their true classes.

    Attributes:
        paths: B image files.
        targets: int64; the class of each image (B,), which for ``binary`` is 0 or 1; 0 or 1 for each class (B, K) for
            ``multilabel``.
        matched_by: how names became classes: ``name`` (of the labels), ``sorted order`` of the folders, or ``number``.
        folders: of one folder per class: each folder's name and class; empty for a CSV.
    """

    paths: list[Path]
    targets: NDArray[np.int64]
    matched_by: Literal["name", "sorted order", "number"]
    folders: tuple[tuple[str, int], ...] = ()


def read_labelled_images(data: str | os.PathLike[str], contract: Contract) -> LabelledImages:
    """Find images and the classes that they belong to; no image is read.

    Args:
        data: a folder with one folder of images per class (not for ``multilabel``), each searched recursively; or a CSV
            file with a header and the columns ``path`` (relative to the file's folder) and ``labels`` (names, or
            numbers where the model has no names; several are separated by ``;``).
        contract: the model's task and labels.

    Raises:
        InputError: if the folders or labels cannot be matched to classes, or there is no image.
    """
    path = Path(data)
    if path.is_dir():
        if contract.task == "multilabel":
            raise InputError(
                f"{path} is a folder, where each image has one class; a multi-label model needs a CSV file"
            )
        return _read_folder(path, contract)
    if path.is_file():
        return _read_csv(path, contract)
    raise InputError(f"{path} does not exist; {_DATA}")


def _read_folder(root: Path, contract: Contract) -> LabelledImages:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{root} contains no folders; {_DATA}")
    matched_by, indices = _match([f.name for f in folders], contract)
    paths = [find_images(folder) for folder in folders]
    return LabelledImages(
        paths=[path for group in paths for path in group],
        targets=np.repeat(np.array(indices, np.int64), [len(group) for group in paths]),
        matched_by=matched_by,
        folders=tuple((folder.name, index) for folder, index in zip(folders, indices, strict=True)),
    )


def _match(names: list[str], contract: Contract) -> tuple[Literal["name", "sorted order"], list[int]]:
    labels, num_classes = contract.labels, contract.num_classes
    if labels is not None and set(names) <= set(labels):
        return "name", [labels.index(name) for name in names]
    if len(names) == num_classes:
        return "sorted order", list(range(num_classes))
    if labels is None:
        raise InputError(
            f"{len(names)} folders for {num_classes} classes, and the model has no labels to match them by name"
        )
    unknown = [name for name in names if name not in labels]
    raise InputError(f"{len(names)} folders for {num_classes} classes; not among the labels: {', '.join(unknown[:10])}")


def _read_csv(path: Path, contract: Contract) -> LabelledImages:
    paths: list[Path] = []
    rows: list[list[int]] = []
    indices = {contract.label(i): i for i in range(contract.num_classes)}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS.split(",") if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}; its first line must be {_COLUMNS}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if not row["path"]:
                    raise InputError(f"{where}: the path is empty")
                paths.append(path.parent / row["path"])
                rows.append(_classes(row["labels"] or "", indices, contract, where=where))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not paths:
        raise InputError(f"{path} contains no rows")
    if contract.task == "multilabel":
        targets = np.zeros((len(rows), contract.num_classes), np.int64)
        for target_K, classes in zip(targets, rows, strict=True):
            target_K[classes] = 1
    else:
        targets = np.array([classes[0] for classes in rows], np.int64)
    return LabelledImages(paths=paths, targets=targets, matched_by="number" if contract.labels is None else "name")


def _classes(text: str, indices: dict[str, int], contract: Contract, *, where: str) -> list[int]:
    names = [name.strip() for name in text.split(_SEPARATOR) if name.strip()]
    for name in names:
        if name not in indices:
            known = ", ".join(list(indices)[:10])
            raise InputError(
                f"{where}: {name!r} is not among the model's labels ({known}{', ...' * (len(indices) > 10)})"
            )
    if contract.task != "multilabel" and len(names) != 1:
        raise InputError(f"{where}: {len(names)} labels, but an image of a {contract.task} model has one")
    return [indices[name] for name in names]
