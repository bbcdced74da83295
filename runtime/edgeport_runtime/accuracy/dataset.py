"""Labelled images: one folder per class, or a CSV of paths and labels. Shapes: B images, K outputs."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_runtime.accuracy.matching import match_names
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.decode import is_folder, search_images
from edgeport_runtime.pixels.formats import image_suffixes, kind_of, short_name

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edgeport_runtime.accuracy.matching import Match, MatchedBy
    from edgeport_runtime.bundle.contract import Contract

__all__ = ["Images", "LabelledImages", "Row", "read_images", "read_labelled_images", "read_rows"]

_SEPARATOR = ";"
_PATH, _LABELS = _COLUMNS = ("path", "labels")
_HEADER = ",".join(_COLUMNS)
_DATA = f"--data takes a folder with one folder of images per class, or a CSV with the columns {_HEADER}"
_NUM_SHOWN = 5
_NAMED_SEPARATOR = re.compile("sep=([,;\t|])", re.IGNORECASE)


class Row(NamedTuple):
    """A row of a CSV: where it stands, an image's path as it is written, and the labels."""

    where: str
    path: str
    names: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImages:
    """Images and their true classes.

    Attributes:
        paths: B image files.
        targets: int64; the class of each image (B,), which for ``binary`` is 0 or 1; 0 or 1 for each class (B, K) for
            ``multilabel``.
        matched_by: how names became classes: ``name`` (of the labels), ``sorted order`` of the folders, or ``number``.
        folders: of one folder per class: each folder's name and class; empty for a CSV.
        left_out: of folders: how many files of each kind were not taken as images.
    """

    paths: list[Path]
    targets: NDArray[np.int64]
    matched_by: MatchedBy
    folders: tuple[tuple[str, int], ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """Those of the images alone."""
        return replace(self, paths=[self.paths[i] for i in indices], targets=self.targets[list(indices)])


class Images(NamedTuple):
    """Image files, what is true of them (None where that is not known), and what to know of them, if anything."""

    paths: list[Path]
    labelled: LabelledImages | None
    note: str | None


def read_images(data: str | os.PathLike[str], contract: Contract, *, match: Match = "auto") -> Images:
    """Images with their labels as ``read_labelled_images``; where the folders are no classes, the images alone.

    Raises:
        InputError: if there is no image; of a CSV, or with ``match``, as ``read_labelled_images``.
    """
    try:
        labelled = read_labelled_images(data, contract, match=match)
    except InputError as error:
        if not is_folder(data) or match != "auto":
            raise
        return Images(search_images(data).paths, None, f"no labels: {error}")
    return Images(labelled.paths, labelled, None)


def read_labelled_images(data: str | os.PathLike[str], contract: Contract, *, match: Match = "auto") -> LabelledImages:
    """Find images and the classes that they belong to; no image is read.

    Args:
        data: a folder with one folder of images per class (not for ``multilabel``), each searched recursively; or a CSV
            file with a header and the columns ``path`` (relative to the file's folder) and ``labels`` (names or
            numbers; several are separated by ``;``), as ``read_rows`` reads it.
        contract: the model's task and labels.
        match: ``auto`` matches names to labels, or numbers to classes (``match_names``); ``order`` takes the
            folders, sorted by name as torchvision's ImageFolder sorts them, as the classes in their order.

    Raises:
        InputError: if the folders or labels cannot be matched to classes, or there is no image.
    """
    path = Path(data)
    if is_folder(path):
        if contract.task == "multilabel":
            raise InputError(
                f"{path} is a folder, where each image has one class; a multi-label model needs a CSV file"
            )
        return _read_folder(path, contract, match)
    if match == "order":
        raise InputError(f"--match order is for one folder per class; {short_name(path)} is no folder")
    try:
        is_file = path.is_file()
    except OSError:  # too long for a path
        is_file = False
    if not is_file:
        raise InputError(f"{short_name(path)} does not exist; {_DATA}")
    return _read_csv(path, contract)


def _read_folder(root: Path, contract: Contract, match: Match) -> LabelledImages:
    entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    folders = [p for p in entries if p.is_dir()]
    if not folders:
        raise InputError(f"{root} contains no folders; {_DATA}")
    matched_by, indices = _match_folders(root, [f.name for f in folders], contract, match)
    found = [search_images(folder) for folder in folders]
    beside = [p.suffix for p in entries if p.is_file()]
    left_out = Counter("in no folder of a class" if s.lower() in image_suffixes() else kind_of(s) for s in beside)
    return LabelledImages(
        paths=[path for group in found for path in group.paths],
        targets=np.repeat(np.array(indices, np.int64), [len(group.paths) for group in found]),
        matched_by=matched_by,
        folders=tuple((folder.name, index) for folder, index in zip(folders, indices, strict=True)),
        left_out=sum((group.left_out for group in found), left_out),
    )


def _match_folders(root: Path, names: list[str], contract: Contract, match: Match) -> tuple[MatchedBy, list[int]]:
    is_complete = len(names) == contract.num_classes
    if match == "order":
        if not is_complete:
            raise InputError(
                f"{root}: --match order needs one folder per class, but there are {len(names)} folders for "
                f"{contract.num_classes} classes"
            )
        return "sorted order", list(range(len(names)))
    matching = match_names(names, contract)
    if matching.problems:
        told = "; ".join(list(matching.problems.values())[:_NUM_SHOWN])
        more = len(matching.problems) - _NUM_SHOWN
        order = ", or give --match order if they are the classes in sorted order" if is_complete else ""
        raise InputError(
            f"{root}: {len(names)} folders for {contract.num_classes} classes cannot be matched: {told}"
            f"{f'; and {more} more' if more > 0 else ''}; name the folders by the labels, or by the classes' "
            f"numbers{order}"
        )
    return matching.by, [matching.classes[name] for name in names]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file of paths and labels, in UTF-8 or UTF-16, with a header.

    Columns are separated by commas or, as Excel writes them, by tabs or semicolons, or by what a first line ``sep=;``
    names; where it is the semicolon, several labels of a row are quoted (``"cat;dog"``). Other columns and empty rows
    are passed over.

    Raises:
        InputError: naming the line, if it is no such file.
    """
    try:
        with path.open(newline="", encoding=_encoding(path)) as file:
            header = file.readline()
            named = _NAMED_SEPARATOR.fullmatch(header.strip())
            if named is not None:
                header = file.readline()
            delimiter = named[1] if named else next((c for c in ",;\t" if c in header), ",")
            reader = csv.DictReader(file, next(csv.reader([header], delimiter=delimiter)), delimiter=delimiter)
            reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
            missing = [name for name in _COLUMNS if name not in reader.fieldnames]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}; its first line must be {_HEADER}")
            for row in reader:
                where = f"{path}, line {reader.line_num + (1 if named is None else 2)}"
                if any(row.get(None) or ()):
                    raise InputError(f'{where}: more values than columns; write several labels as "cat;dog", in quotes')
                names = [name.strip() for name in (row[_LABELS] or "").split(_SEPARATOR) if name.strip()]
                if row[_PATH]:
                    yield Row(where, row[_PATH], names)
                elif names:
                    raise InputError(f"{where}: the path is empty")
    except (UnicodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8 or UTF-16: {error}") from None


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _read_csv(path: Path, contract: Contract) -> LabelledImages:
    rows = list(read_rows(path))
    if not rows:
        raise InputError(f"{path} contains no rows")
    matching = match_names((name for row in rows for name in row.names), contract)
    is_multilabel = contract.task == "multilabel"
    targets = np.zeros((len(rows), contract.num_classes) if is_multilabel else len(rows), np.int64)
    for i, row in enumerate(rows):
        problem = next((matching.problems[name] for name in row.names if name in matching.problems), None)
        if problem is not None:
            raise InputError(f"{row.where}: {problem}")
        if not is_multilabel and len(row.names) != 1:
            raise InputError(f"{row.where}: {len(row.names)} labels, but an image of a {contract.task} model has one")
        classes = [matching.classes[name] for name in row.names]
        if is_multilabel:
            targets[i, classes] = 1
        else:
            targets[i] = classes[0]
    return LabelledImages(
        paths=[_beside(path, row.path) for row in rows],
        targets=targets,
        matched_by=matching.by,
    )


def _beside(file: Path, written: str) -> Path:
    """The path of an image as a CSV names it; one that was written on Windows has backslashes."""
    path = file.parent / written
    return path if "\\" not in written or path.exists() else file.parent / written.replace("\\", "/")
