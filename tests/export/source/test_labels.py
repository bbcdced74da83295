"""Files of labels as people have them: text, JSON in either direction, tables as Excel saves them; never guessed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeport_export.source.labels import read_labels
from edgeport_runtime.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("cat", "dog", "crane, bird", "Kühlschrank")
TO_INDEX = {"dog": 1, "crane, bird": 2, "cat": 0, "Kühlschrank": 3}
TO_NAME = {"1": "dog", "0": "cat", "3": "Kühlschrank", "2": "crane, bird"}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", ["class_to_idx.json", "labels.txt"])
@pytest.mark.parametrize(
    "document",
    [
        TO_INDEX,
        {name: str(i) for name, i in TO_INDEX.items()},
        TO_NAME,
        list(NAMES),
        {i: [f"n0{i}", name] for i, name in TO_NAME.items()},
        {"model_type": "vit", "id2label": TO_NAME, "label2id": TO_INDEX},
        {"architecture": "resnet18", "label_names": list(NAMES)},
        {"class_to_idx": TO_INDEX},
    ],
    ids=["to index", "to index as text", "to name", "list", "keras", "transformers", "timm", "wrapped"],
)
def test_json(document: Any, name: str, indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=indent is None), encoding="utf-8")
    assert read_labels(path) == NAMES


def test_digits_are_names_where_the_keys_are_indices_too(tmp_path: Path) -> None:
    path = tmp_path / "digits.json"
    for document in ({"0": "7", "1": "3"}, {"7": 0, "3": 1}):
        path.write_text(json.dumps(document))
        assert read_labels(path) == ("7", "3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": 0, "dog": 2}', "the 2 names have no index 1; indices are 0 to 1"),
        ('{"cat": 0, "dog": 0}', "the 2 names have no index 1"),
        ('{"1": "cat", "2": "dog"}', "the 2 names have no index 0"),
        ('{"cat": 0.5}', "does not map names to indices, nor indices to names (at 'cat')"),
        ('{"learning_rate": 0.1, "epochs": 90}', "(at 'learning_rate')"),
        ('{"0": 5.5}', "a name is 5.5, not text"),
        ('{"0": null}', "a name is None, not text"),
        ('{"0": ""}', "class 0 has no name"),
        ('["cat", 3]', "a name is 3, not text"),
        ("{}", "it is an empty object"),
        ("[]", "class 0 has no name"),
        ('{\n  "cat": 0,\n  "dog": 1,\n', "it is damaged JSON"),
        ('"cat"', "it is JSON of type str, and holds no labels"),
        ("cat\ndog\n", "it is damaged JSON"),
    ],
)
def test_json_that_is_no_labels_is_refused_and_never_read_as_lines(text: str, message: str, tmp_path: Path) -> None:
    names = ["labels.json", *(["labels.txt"] if text.startswith("{") else [])]
    for name in names:
        (tmp_path / name).write_text(text)
        with pytest.raises(ExportError) as caught:
            read_labels(tmp_path / name)
        assert str(caught.value).startswith(f"--labels {tmp_path / name}: ")
        assert message in str(caught.value)
        assert "give a list of names, an object of names to indices" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        NAMES,
        ('"cat"', "dog", '"crane, bird"', "Kühlschrank"),
        ("label", *NAMES),
        ("index;name", "1;dog", "0;cat", "2;crane, bird", "3;Kühlschrank"),
        ("0;cat", "1;dog", "2;crane, bird", "3;Kühlschrank", ";"),
        ("0;cat;", "1;dog;", "2;crane, bird;", "3;Kühlschrank;"),
        ("sep=;", "cat;0", "dog;1", "crane, bird;2", "Kühlschrank;3"),
        ("class,index", "dog,1", "cat,0", '"crane, bird",2', "Kühlschrank,3"),
        ("0\tcat", "1\tdog", "2\tcrane, bird", "3\tKühlschrank"),
        ("id;wnid;label", "0;n1;cat", "1;n2;dog", "2;n3;crane, bird", "3;n4;Kühlschrank"),
        ("wnid;name", "n1;cat", "n2;dog", "n3;crane, bird", "n4;Kühlschrank"),
    ],
    ids=[
        "plain",
        "quoted",
        "header",
        "semicolons",
        "no header",
        "empty column",
        "excel",
        "commas",
        "tabs",
        "three",
        "unnumbered",
    ],
)
def test_tables(lines: tuple[str, ...], newline: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(newline.join((*lines, "")).encode(encoding))
    assert read_labels(path) == NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1;cat\n2;dog\n", "which of its 2 columns holds the names is not clear"),
        ("5;cat\n0;dog\n1;owl\n", "which of its 2 columns"),
        ("id;name\n1;cat\n2;dog\n", "the column id does not count from 0 to 1"),
        ("a;b;c\n0;cat;x\n1;dog;y\n", "which of its 3 columns"),
        ("0,cat\n1,crane, bird\n", "its lines differ in their number of columns"),
        ("cat\n\ndog\n", "class 1 has no name"),
        ("0;cat\n1;\n2;dog\n", "class 1 has no name"),
        ("id,name\n0,cat\n1,\n", "class 1 has no name"),
        ("", "it is empty"),
    ],
)
def test_tables_that_are_not_clear_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ExportError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"--labels {path}: {message}")
    assert str(caught.value).endswith("give one column of names, or a column of indices from 0 and one of names")


def test_text_of_another_encoding_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("Kühlschrank\n".encode("cp1252"))
    with pytest.raises(ExportError, match=r"is not UTF-8 text; .*in Excel, save as CSV UTF-8"):
        read_labels(path)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("1\tdog\n0\tcat\n", ("cat", "dog")),
        ("1: dog\n0: cat\n", ("cat", "dog")),
        ("0,tench, Tinca tinca\n1,goldfish\n", ("tench, Tinca tinca", "goldfish")),
        ("cat\ndog\n\n\n", ("cat", "dog")),
        ("0 stars\n1 star\n2 stars\n", ("0 stars", "1 star", "2 stars")),
        ("7\n8\n9\n", ("7", "8", "9")),
        ("1\n0\n", ("1", "0")),
        ("2: b\n1: a\n", ("2: b", "1: a")),
    ],
)
def test_lines_that_begin_with_their_index(text: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert read_labels(path) == labels


def test_lines_that_begin_with_another_index_than_theirs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("1 dog\n0 cat\n")
    with pytest.raises(ExportError, match=r"numbers of other classes .*; give the names alone, one per line"):
        read_labels(path)
