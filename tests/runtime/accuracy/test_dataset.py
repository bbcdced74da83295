"""Labelled images: folders and CSV files, and how they are matched to classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from contracts import make_contract
from edgeport_runtime import InputError
from edgeport_runtime.accuracy.dataset import read_labelled_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ("cat", "dog", "owl")


def _csv(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_csv_of_several_labels(tmp_path: Path) -> None:
    path = _csv(tmp_path, 'path,labels\na.png,cat;owl\n"sub/b, c.png",\nd.png, dog ; cat\n', encoding="utf-8-sig")
    images = read_labelled_images(path, make_contract("multilabel", 3, labels=LABELS))
    assert images.paths == [tmp_path / "a.png", tmp_path / "sub/b, c.png", tmp_path / "d.png"]
    assert images.targets.tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert images.matched_by == "name"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path\tlabels\r\na, b.png\towl\r\nc.png\tcat\r\n", "utf-16"),  # Excel's "Unicode text"
        ("sep=;\r\npath;labels\r\na, b.png;owl\r\nc.png;cat\r\n", "utf-8-sig"),
        ('path,labels\n"a, b.png",owl\nc.png,cat\n', "utf-16"),
    ],
    ids=["tabs", "sep", "commas"],
)
def test_csv_as_excel_writes_it(text: str, encoding: str, tmp_path: Path) -> None:
    images = read_labelled_images(
        _csv(tmp_path, text, encoding=encoding), make_contract("multiclass", 3, labels=LABELS)
    )
    assert images.paths == [tmp_path / "a, b.png", tmp_path / "c.png"]
    assert images.targets.tolist() == [2, 0]


def test_the_line_is_counted_from_the_top_of_the_file(tmp_path: Path) -> None:
    path = _csv(tmp_path, "sep=;\npath;labels\na.png;cat\nb.png;unicorn\n")
    with pytest.raises(InputError, match=r"line 4: 'unicorn'"):
        read_labelled_images(path, make_contract("multiclass", 3, labels=LABELS))


def test_csv_of_one_label(tmp_path: Path) -> None:
    path = _csv(tmp_path, "labels,extra,path\nowl,1,a.png\ncat,2,b.png\n")
    images = read_labelled_images(path, make_contract("multiclass", 3, labels=LABELS))
    assert images.targets.tolist() == [2, 0]
    binary = _csv(tmp_path, "path,labels\na.png,yes\nb.png,no\n")
    assert read_labelled_images(binary, make_contract("binary", labels=("no", "yes"))).targets.tolist() == [1, 0]


def test_csv_of_numbers_where_names_are_not_known(tmp_path: Path) -> None:
    path = _csv(tmp_path, "path,labels\na.png,2\nb.png,0;1\n")
    images = read_labelled_images(path, make_contract("multilabel", 3))
    assert (images.targets.tolist(), images.matched_by) == ([[0, 0, 1], [1, 1, 0]], "number")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.csv has no column 'path'; its first line must be path,labels"),
        ("path,label\na.png,cat\n", "has no column 'labels'"),
        ("path,labels\n", "contains no rows"),
        (
            "path,labels\na.png,cat\nb.png,unicorn\n",
            r"line 3: 'unicorn' is not among the model's labels \(cat, dog, owl\)",
        ),
        ("path,labels\n,cat\n", "line 2: the path is empty"),
        ("path,labels\na.png,cat;dog\n", "line 2: 2 labels, but an image of a multiclass model has one"),
        ("path,labels\na.png\n", "line 2: 0 labels, but"),
    ],
)
def test_csv_that_cannot_be_used_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = _csv(tmp_path, text)
    with pytest.raises(InputError, match=message):
        read_labelled_images(path, make_contract("multiclass", 3, labels=LABELS))


def test_file_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(InputError, match=r"photo\.jpg is not a CSV file in UTF-8"):
        read_labelled_images(path, make_contract())


def test_folders_of_a_binary_model_go_by_name_or_order(tmp_path: Path) -> None:
    for name in ("yes", "no"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    by_name = read_labelled_images(tmp_path, make_contract("binary", labels=("yes", "no")))
    assert (by_name.targets.tolist(), by_name.matched_by) == ([1, 0], "name")
    by_order = read_labelled_images(tmp_path, make_contract("binary"), match="order")
    assert (by_order.targets.tolist(), by_order.matched_by) == ([0, 1], "sorted order")


def test_multilabel_model_needs_a_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="where each image has one class; a multi-label model needs a CSV file"):
        read_labelled_images(tmp_path, make_contract("multilabel"))


def test_the_shared_multilabel_data_is_read(shared: Callable[[str], Any]) -> None:
    path = shared("data/voc-multilabel/labels.csv")
    names = sorted({name for line in path.read_text().splitlines()[1:] for name in line.split(",")[1].split(";")})
    images = read_labelled_images(path, make_contract("multilabel", 20, labels=tuple(names)))
    assert images.targets.shape == (100, 20)
    assert (images.targets.sum(axis=1) > 1).sum() == 45
    assert all(image.is_file() for image in images.paths)
