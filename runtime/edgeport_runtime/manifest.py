"""The bundle's manifest: a frozen schema, specified in ``docs/bundle.md``."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from edgeport_runtime.errors import InputError, ManifestError
from edgeport_runtime.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = [
    "CONTRACT_KEY",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Contract",
    "Golden",
    "GoldenImage",
    "Manifest",
    "Variant",
    "bundle_file",
    "load_manifest",
    "sha256_of",
]

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CONTRACT_KEY = "edgeport.contract"
"""Key of the contract's JSON in the ``metadata_props`` of every ``.onnx`` file."""

_MAX_MANIFEST_BYTES = 16 * 2**20
_MAX_CLASSES = 1_000_000
# A plain relative path: no drive, no parent, no hidden file, no separator but "/".
_FILE = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a model takes and what its output means; also inside every ``.onnx`` file.

    Attributes:
        task: ``multiclass``: softmax over the logits.
        num_classes: number of logits, K.
        labels: K names, or None where they are not known.
        batch: the fixed batch size, or None if any is taken.
        preprocess: from an image to the float32 input BCHW.
    """

    task: Literal["multiclass"]
    num_classes: int
    labels: tuple[str, ...] | None
    batch: int | None
    preprocess: PreprocessSpec

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "task": self.task,
            "num_classes": self.num_classes,
            "labels": None if self.labels is None else list(self.labels),
            "batch": self.batch,
            "preprocess": self.preprocess.to_dict(),
            "preprocess_sha256": self.preprocess.sha256(),
        }

    @classmethod
    def from_dict(cls, data: Any, context: str = "contract") -> Contract:
        """Read and validate.

        Raises:
            ManifestError: naming the value that is wrong.
        """
        fields = ("task", "num_classes", "labels", "batch", "preprocess", "preprocess_sha256")
        data = _object(data, context, fields)
        if data["task"] != "multiclass":
            _fail(f"{context}.task", f"{data['task']!r} is not a task that this version knows (multiclass)")
        num_classes = _integer(data["num_classes"], f"{context}.num_classes", 1, _MAX_CLASSES)
        labels = data["labels"]
        if labels is not None:
            labels = tuple(
                _string(v, f"{context}.labels[{i}]") for i, v in enumerate(_list(labels, f"{context}.labels"))
            )
            if len(labels) != num_classes:
                _fail(f"{context}.labels", f"{len(labels)} labels for {num_classes} classes")
        batch = data["batch"]
        if batch is not None:
            batch = _integer(batch, f"{context}.batch", 1, 65_536)
        try:
            spec = PreprocessSpec.from_dict(_object(data["preprocess"], f"{context}.preprocess"))
        except InputError as error:
            raise ManifestError(str(error), context=f"{context}.preprocess") from None
        if data["preprocess_sha256"] != spec.sha256():
            _fail(f"{context}.preprocess_sha256", "is not the digest of preprocess; the manifest was edited by hand")
        return cls(task="multiclass", num_classes=num_classes, labels=labels, batch=batch, preprocess=spec)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One model file of a bundle.

    Attributes:
        name: such as ``fp32``; the file is ``model.<name>.onnx``.
        file: path inside the bundle.
        precision: the precision that the file asks for, such as ``float32``.
        scheme: how it was quantized, None for a float variant.
        opset: version of the ONNX operator set.
        sha256: digest of the file.
        size_bytes: size of the file.
        tolerance: largest relative L2 distance from PyTorch's logits that ``run-model verify`` accepts.
    """

    name: str
    file: str
    precision: str
    scheme: str | None
    opset: int
    sha256: str
    size_bytes: int
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {field: getattr(self, field) for field in self.__slots__}

    @classmethod
    def from_dict(cls, data: Any, context: str) -> Variant:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = _object(data, context, tuple(cls.__slots__))
        scheme = data["scheme"]
        return cls(
            name=_string(data["name"], f"{context}.name"),
            file=_file(data["file"], f"{context}.file"),
            precision=_string(data["precision"], f"{context}.precision"),
            scheme=None if scheme is None else _string(scheme, f"{context}.scheme"),
            opset=_integer(data["opset"], f"{context}.opset", 1, 1000),
            sha256=_digest(data["sha256"], f"{context}.sha256"),
            size_bytes=_integer(data["size_bytes"], f"{context}.size_bytes", 1, 2**62),
            tolerance=_number(data["tolerance"], f"{context}.tolerance"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenImage:
    """An image of the bundle whose logits are known: its path inside the bundle, and its digest."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """What ``run-model verify`` replays.

    Attributes:
        images: in the order of the rows of ``expected``.
        expected: path of an ``.npz`` whose array ``logits`` (float32, images x classes) PyTorch computed.
        sha256: digest of that file.
    """

    images: tuple[GoldenImage, ...]
    expected: str
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        images = [{"file": image.file, "sha256": image.sha256} for image in self.images]
        return {"images": images, "expected": self.expected, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, data: Any, context: str = "golden") -> Golden:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = _object(data, context, ("images", "expected", "sha256"))
        images = []
        for i, item in enumerate(_list(data["images"], f"{context}.images")):
            where = f"{context}.images[{i}]"
            item = _object(item, where, ("file", "sha256"))
            image = GoldenImage(
                file=_file(item["file"], f"{where}.file"), sha256=_digest(item["sha256"], f"{where}.sha256")
            )
            images.append(image)
        if not images:
            _fail(f"{context}.images", "is empty")
        return cls(
            images=tuple(images),
            expected=_file(data["expected"], f"{context}.expected"),
            sha256=_digest(data["sha256"], f"{context}.sha256"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes:
        architecture: name, number of parameters and source of the network.
        weights: where the weights came from.
        contract: input, task and labels.
        variants: the model files, at least one, names unique.
        golden: images with known logits.
        parity: the chain of comparisons with PyTorch, a list of stages (``docs/bundle.md``).
        provenance: versions of everything that took part.
    """

    architecture: Mapping[str, Any]
    weights: Mapping[str, Any]
    contract: Contract
    variants: tuple[Variant, ...]
    golden: Golden
    parity: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "architecture": dict(self.architecture),
            "weights": dict(self.weights),
            "contract": self.contract.to_dict(),
            "variants": [variant.to_dict() for variant in self.variants],
            "golden": self.golden.to_dict(),
            "parity": [dict(stage) for stage in self.parity],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Manifest:
        """Read and validate.

        Raises:
            ManifestError: naming the value that is wrong by its path, such as ``variants[1].sha256``.
        """
        if not isinstance(data, dict) or "schema_version" not in data:
            raise ManifestError("this is not an EdgePort manifest (no schema_version)")
        version = _integer(data["schema_version"], "schema_version", 1, 2**31)
        if version > SCHEMA_VERSION:
            _fail(
                "schema_version",
                f"{version} is later than {SCHEMA_VERSION}, the latest this version of edgeport reads; "
                "upgrade with: pip install --upgrade edgeport",
            )
        fields = ("architecture", "weights", "contract", "variants", "golden", "parity", "provenance")
        data = _object({k: v for k, v in data.items() if k != "schema_version"}, "", fields)
        architecture = _object(data["architecture"], "architecture", ("name", "num_params", "source"))
        _string(architecture["name"], "architecture.name")
        _string(architecture["source"], "architecture.source")
        _integer(architecture["num_params"], "architecture.num_params", 0, 2**62)
        variants = tuple(
            Variant.from_dict(v, f"variants[{i}]") for i, v in enumerate(_list(data["variants"], "variants"))
        )
        if not variants:
            _fail("variants", "is empty")
        if len({variant.name for variant in variants}) != len(variants):
            _fail("variants", "two variants have the same name")
        return cls(
            architecture=architecture,
            weights=_object(data["weights"], "weights"),
            contract=Contract.from_dict(data["contract"]),
            variants=variants,
            golden=Golden.from_dict(data["golden"]),
            parity=tuple(
                _object(stage, f"parity[{i}]", ("stage",), exact=False)
                for i, stage in enumerate(_list(data["parity"], "parity"))
            ),
            provenance=_provenance(data["provenance"]),
        )


def _provenance(value: Any) -> dict[str, Any]:
    provenance = _object(value, "provenance")
    for name, source in _object(provenance.get("sources", {}), "provenance.sources").items():
        _string(source, f"provenance.sources.{name}")
    return provenance


def load_manifest(bundle: str | os.PathLike[str]) -> Manifest:
    """Read a bundle's manifest; nothing else of the bundle is read.

    Raises:
        ManifestError: if the folder holds no manifest, or one that does not follow the specification.
    """
    path = Path(bundle) / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestError(f"{bundle} is not an EdgePort bundle: it holds no {MANIFEST_NAME}") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None
    if len(text) > _MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path} is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}") from None
    return Manifest.from_dict(data)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_file(bundle: Path, name: str) -> Path:
    """The path of one of the bundle's files, after links are resolved.

    Raises:
        ManifestError: if it does not exist, or lies outside the bundle.
    """
    try:
        path = (bundle / name).resolve()
    except (OSError, RuntimeError):  # a loop of links, before Python 3.13
        path = bundle.resolve()
    if not path.is_relative_to(bundle.resolve()):
        raise ManifestError(f"{name} is a link that leaves the bundle")
    if not path.is_file():
        raise ManifestError(f"{bundle} lacks the file {name} that its manifest names; copy the whole folder again")
    return path


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _fail(context: str, message: str) -> NoReturn:
    raise ManifestError(message, context=context)


def _object(value: Any, context: str, fields: tuple[str, ...] = (), *, exact: bool = True) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(context, f"is {_kind(value)}, not an object")
    for field in fields:
        if field not in value:
            _fail(context, f"lacks the field {field!r}")
    if fields and exact:
        for field in value:
            if field not in fields:
                _fail(context, f"has the unknown field {field!r}")
    return value


def _list(value: Any, context: str) -> list[Any]:
    if not isinstance(value, list):
        _fail(context, f"is {_kind(value)}, not a list")
    return value


def _string(value: Any, context: str) -> str:
    if not isinstance(value, str):
        _fail(context, f"is {_kind(value)}, not a string")
    return value


def _integer(value: Any, context: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _fail(context, f"is {value!r}, not a whole number from {low} to {high}")
    return value


def _number(value: Any, context: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        _fail(context, f"is {value!r}, not a positive number")
    return float(value)


def _file(value: Any, context: str) -> str:
    name = _string(value, context)
    if not _FILE.fullmatch(name):
        _fail(context, f"{name!r} is not a plain path inside the bundle")
    return name


def _digest(value: Any, context: str) -> str:
    digest = _string(value, context)
    if not _SHA256.fullmatch(digest):
        _fail(context, f"{digest!r} is not a SHA-256 digest in hexadecimal")
    return digest


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
