from __future__ import annotations

import json
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest

from edgeport_runtime import Manifest, ManifestError, load_manifest
from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.bundle.files import bundle_file
from edgeport_runtime.bundle.manifest import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

    Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]

ABSENT = object()
LATER = (
    "schema_version: 3 is later than 2, the latest that this version of edgeport reads; "
    "install a later EdgePort: from its source, or from the folder runtime of the bundle, if it has one"
)
EDITED = "contract.preprocess_sha256: is not the digest of preprocess; do not edit the manifest, export again"


def put(data: Any, path: tuple[str | int, ...], value: object) -> None:
    """Set the value at a path of keys and indices, or remove it."""
    parent = reduce(lambda node, key: node[key], path[:-1], data)
    if value is ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value


def test_real_manifest_comes_back(resnet20: ExportResult) -> None:
    text = (resnet20.path / "manifest.json").read_text("utf-8")
    data = json.loads(text)
    manifest = load_manifest(resnet20.path)
    assert manifest == Manifest.from_dict(data) == resnet20.manifest
    assert manifest.to_dict() == data
    assert list(manifest.to_dict()) == list(data)
    assert data["schema_version"] == SCHEMA_VERSION == 2
    assert manifest.contract.labels is not None
    assert manifest.contract.labels[3] == "cat"
    assert Contract.from_dict(data["contract"]) == manifest.contract


def test_manifest_without_labels_comes_back(lenet5: ExportResult) -> None:
    manifest = load_manifest(str(lenet5.path))
    assert manifest.contract.labels is None
    assert manifest.to_dict() == json.loads((lenet5.path / "manifest.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), ABSENT, "this is not an EdgePort manifest (no schema_version)"),
        (("schema_version",), 3, LATER),
        (("schema_version",), 0, "schema_version: is 0, not a whole number from 1 to 2147483648"),
        (("schema_version",), "1", "schema_version: is '1', not a whole number from 1 to 2147483648"),
        (("golden",), ABSENT, "lacks the field 'golden'"),
        (("extra",), 1, "has the unknown field 'extra'"),
        (("architecture", "name"), ABSENT, "architecture: lacks the field 'name'"),
        (("architecture", "num_params"), -1, f"architecture.num_params: is -1, not a whole number from 0 to {2**62}"),
        (("architecture", "source"), 5, "architecture.source: is of type int, not a string"),
        (("weights",), [], "weights: is of type list, not an object"),
        (("contract",), None, "contract: is missing, not an object"),
        (("contract", "batch"), ABSENT, "contract: lacks the field 'batch'"),
        (("contract", "batch"), 0, "contract.batch: is 0, not a whole number from 1 to 65536"),
        (("contract", "batch"), True, "contract.batch: is True, not a whole number from 1 to 65536"),
        (
            ("contract", "task"),
            "ranking",
            "contract.task: 'ranking' is not a task that this version knows (multiclass, binary, multilabel)",
        ),
        (
            ("contract", "output"),
            "scores",
            "contract.output: 'scores' is not an output that this version knows (logits, probabilities)",
        ),
        (("contract", "thresholds"), [0.5, 0.5], "contract.thresholds: a multiclass task has one value, or none"),
        (("contract", "thresholds"), [1.0], "contract.thresholds[0]: is 1.0, not a probability above 0 and below 1"),
        (("contract", "task"), "binary", "contract.num_classes: a binary task has 2 classes, not 10"),
        (
            ("contract", "task"),
            "multilabel",
            "contract.thresholds: a multilabel task has one value, or 10 (one per class)",
        ),
        (("contract", "num_classes"), 11, "contract.labels: there are 10 labels, but 11 classes"),
        (("contract", "num_classes"), 1.0, "contract.num_classes: is 1.0, not a whole number from 1 to 1000000"),
        (("contract", "labels", 9), ABSENT, "contract.labels: there are 9 labels, but 10 classes"),
        (("contract", "labels", 2), 7, "contract.labels[2]: is of type int, not a string"),
        (("contract", "labels"), "cat", "contract.labels: is of type str, not a list"),
        (("contract", "preprocess"), [], "contract.preprocess: is of type list, not an object"),
        (("contract", "preprocess", "color"), "bgr", EDITED),
        (("contract", "preprocess", "mean", 0), 0.5, EDITED),
        (("contract", "preprocess_sha256"), "0" * 64, EDITED),
        (
            ("contract", "preprocess", "scale"),
            "half",
            "contract.preprocess: scale is 'half'; choose one of unit, byte",
        ),
        (("variants",), [], "variants: is empty"),
        (("variants",), {}, "variants: is of type dict, not a list"),
        (("variants", 0), "fp32", "variants[0]: is of type str, not an object"),
        (("variants", 0, "sha256"), ABSENT, "variants[0]: lacks the field 'sha256'"),
        (("variants", 0, "speed"), 1, "variants[0]: has the unknown field 'speed'"),
        (
            ("variants", 0, "sha256"),
            "A" * 64,
            f"variants[0].sha256: '{'A' * 64}' is not a SHA-256 digest in hexadecimal",
        ),
        (("variants", 0, "sha256"), "ab", "variants[0].sha256: 'ab' is not a SHA-256 digest in hexadecimal"),
        (("variants", 0, "quantization"), 8, "variants[0].quantization: is of type int, not an object"),
        (("variants", 0, "quantization"), {"target": None}, "variants[0].quantization: lacks the field 'scheme'"),
        (
            ("variants", 0, "quantization"),
            {"scheme": 8, "target": None},
            "variants[0].quantization.scheme: is of type int, not a string",
        ),
        (
            ("variants", 0, "quantization"),
            {"scheme": "static", "target": 8},
            "variants[0].quantization.target: is of type int, not a string",
        ),
        (("variants", 0, "num_equal"), -1, "variants[0].num_equal: is -1, not a whole number from 0 to 2147483648"),
        (("variants", 0, "opset"), 0, "variants[0].opset: is 0, not a whole number from 1 to 1000"),
        (("variants", 0, "size_bytes"), 0, f"variants[0].size_bytes: is 0, not a whole number from 1 to {2**62}"),
        (("variants", 0, "tolerance"), 0, "variants[0].tolerance: is 0, not a positive number"),
        (("variants", 0, "tolerance"), "1", "variants[0].tolerance: is '1', not a positive number"),
        (("variants", 0, "tolerance"), 10**400, f"variants[0].tolerance: is {10**400}, not a positive number"),
        (("golden", "images"), [], "golden.images: is empty"),
        (("golden", "images", 1, "file"), ABSENT, "golden.images[1]: lacks the field 'file'"),
        (("golden", "images", 1, "sha256"), "", "golden.images[1].sha256: '' is not a SHA-256 digest in hexadecimal"),
        (("golden", "sha256"), None, "golden.sha256: is missing, not a string"),
        (("parity", 0, "stage"), ABSENT, "parity[0]: lacks the field 'stage'"),
        (("parity", 0), 1, "parity[0]: is of type int, not an object"),
        (("provenance",), "x", "provenance: is of type str, not an object"),
    ],
)
def test_wrong_value_is_named_by_its_path(
    resnet20: ExportResult, path: tuple[str | int, ...], value: object, message: str
) -> None:
    data = json.loads((resnet20.path / "manifest.json").read_text("utf-8"))
    put(data, path, value)
    with pytest.raises(ManifestError) as caught:
        Manifest.from_dict(data)
    assert str(caught.value) == message
    assert message.startswith(caught.value.context)


@pytest.mark.parametrize("field", [("variants", 0, "file"), ("golden", "expected"), ("golden", "images", 0, "file")])
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a\\b",
        "..",
        ".",
        "",
        "a/../b",
        "a/b/c",
        "./a",
        ".hidden",
        "a/",
        "a//b",
        "c:a",
        "a\n",
        "a\0",
    ],
)
def test_path_that_could_leave_the_bundle_is_refused(
    lenet5: ExportResult, field: tuple[str | int, ...], name: str
) -> None:
    data = lenet5.manifest.to_dict()
    put(data, field, name)
    with pytest.raises(ManifestError) as caught:
        Manifest.from_dict(data)
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in field).lstrip(".")
    assert str(caught.value) == f"{where}: {name!r} is not a plain path inside the bundle"
    assert caught.value.context == where


def test_two_variants_of_one_name_are_refused(lenet5: ExportResult) -> None:
    data = lenet5.manifest.to_dict()
    data["variants"].append(data["variants"][0])
    with pytest.raises(ManifestError, match=r"^variants: two variants have the same name$"):
        Manifest.from_dict(data)


@pytest.mark.parametrize("data", [None, [], "manifest", {}, {"version": 1}])
def test_document_of_another_kind_is_refused(data: object) -> None:
    with pytest.raises(ManifestError, match=r"^this is not an EdgePort manifest \(no schema_version\)$"):
        Manifest.from_dict(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        (b"[" * 200_000, "recursion"),
        (b'{"schema_version": NaN}', "NaN is not a finite number"),
        (b'{"provenance": {"x": -Infinity}}', "-Infinity is not a finite number"),
        (b'{"provenance": {"x": 1e999}}', "1e999 is not a finite number"),
    ],
)
def test_file_that_is_not_json_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(text)
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    assert str(caught.value).startswith(f"{path} is not JSON: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_manifest_of_unreasonable_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    assert str(caught.value) == f"{path} is larger than 16777216 bytes, the most that a manifest may have"


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (tmp_path, tmp_path / "absent", file):
        with pytest.raises(ManifestError) as caught:
            load_manifest(place)
        assert str(caught.value) == f"{place} is not an EdgePort bundle: it has no manifest.json"
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ManifestError, match=r"/manifest\.json: Is a directory$"):
        load_manifest(tmp_path)


def test_link_that_leaves_the_bundle_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (bundle / "file").symlink_to(outside / "secret")
    (bundle / "folder").symlink_to(outside)
    for name in ("file", "folder/secret"):
        with pytest.raises(ManifestError) as caught:
            bundle_file(bundle, name)
        assert str(caught.value) == f"{name} is a link that leads out of the bundle"


def test_links_inside_and_to_the_bundle_are_followed(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "model").write_text("x")
    (bundle / "alias").symlink_to("model")
    link = tmp_path / "link"
    link.symlink_to(bundle)
    assert bundle_file(link, "alias").read_text() == "x"


def test_file_that_is_absent_or_a_folder_or_a_loop_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "folder", "loop"):
        with pytest.raises(ManifestError) as caught:
            bundle_file(tmp_path, name)
        assert str(caught.value) == (
            f"{tmp_path} lacks the file {name}, which its manifest lists; copy the whole folder again"
        )
