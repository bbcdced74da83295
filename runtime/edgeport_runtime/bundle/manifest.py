"""The bundle's manifest: a frozen schema, specified in ``docs/bundle.md``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.bundle.schema import (
    expect_digest,
    expect_file,
    expect_integer,
    expect_list,
    expect_number,
    expect_object,
    expect_string,
    fail,
)
from edgeport_runtime.bundle.side_files import DataFile, Evidence, Features
from edgeport_runtime.errors import InputError, ManifestError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = [
    "CONTRACT_KEY",
    "MANIFEST_NAME",
    "QUANTIZATION_KEY",
    "SCHEMA_VERSION",
    "DataFile",
    "Golden",
    "GoldenImage",
    "Manifest",
    "Variant",
    "load_manifest",
]

SCHEMA_VERSION = 2
"""Written here; version 1, of EdgePort 0.1, is read as well."""
MANIFEST_NAME = "manifest.json"
CONTRACT_KEY = "edgeport.contract"
"""Key of the contract's JSON in the ``metadata_props`` of every ``.onnx`` file."""
QUANTIZATION_KEY = "edgeport.quantization"
"""Key of the ``scheme`` and ``target``, as JSON, in that of every quantized one."""

_OPTIONAL = ("score_tolerance", "evidence", "features")  # of a variant
_MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One model file of a bundle.

    Attributes:
        name: such as ``fp32``; the file is ``model.<name>.onnx``.
        file: path inside the bundle.
        precision: the precision that the file asks for, such as ``float32``.
        quantization: how it was quantized and what that costs (``docs/bundle.md``); None for ``fp32``.
        opset: version of the ONNX operator set.
        sha256: digest of the file.
        size_bytes: size of the file.
        data: the weights, where they are in a file of their own; its name is the model's with ``.data`` after it.
        in_graph: the same network with its preprocessing in the graph, where that was asked for.
        ort: the model in ONNX Runtime's own format, where that was asked for.
        in_graph_ort: of both, where both were asked for.
        tolerance: largest relative L2 distance from PyTorch's logits that ``run-model verify`` accepts.
        num_equal: golden images with PyTorch's decisions; ``run-model verify`` accepts no fewer.
        score_tolerance: largest difference of a probability from PyTorch's that it accepts; None where nothing is
            said of probabilities (schema version 1, or a variant that the build machine could not run).
        evidence: how the region that speaks for an answer is found, where that was asked for.
        features: the embedding before the last layer, where that was asked for and the graph shows it.
    """

    name: str
    file: str
    precision: str
    quantization: Mapping[str, Any] | None
    opset: int
    sha256: str
    size_bytes: int
    data: DataFile | None
    in_graph: DataFile | None
    ort: DataFile | None
    in_graph_ort: DataFile | None
    tolerance: float
    num_equal: int
    score_tolerance: float | None = None
    evidence: Evidence | None = None
    features: Features | None = None

    @property
    def total_bytes(self) -> int:
        """Size of the model and its weights."""
        return self.size_bytes + (0 if self.data is None else self.data.size_bytes)

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each of its files, by its path inside the bundle."""
        others = (self.data, self.in_graph, self.ort, self.in_graph_ort)
        return {self.file: self.sha256, **{other.file: other.sha256 for other in others if other is not None}}

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what is optional and has its default is left out."""
        data = asdict(self)
        for name, more in (("evidence", self.evidence), ("features", self.features)):
            data[name] = None if more is None else more.to_dict()
        return {name: value for name, value in data.items() if name not in _OPTIONAL or value is not None}

    @classmethod
    def from_dict(cls, data: Any, context: str) -> Variant:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        needed = tuple(name for name in cls.__slots__ if name not in _OPTIONAL)
        data = expect_object(data, context, needed, optional=_OPTIONAL)
        quantization, weights = data["quantization"], data["data"]
        if quantization is not None:
            fields = expect_object(quantization, f"{context}.quantization", ("scheme", "target"), exact=False)
            expect_string(fields["scheme"], f"{context}.quantization.scheme")
            if fields["target"] is not None:
                expect_string(fields["target"], f"{context}.quantization.target")
        if weights is not None:
            weights = DataFile.from_dict(weights, f"{context}.data")
            if weights.file != f"{data['file']}.data":  # where ONNX Runtime looks for it
                fail(f"{context}.data.file", f"{weights.file!r} is not the model's name with .data after it")
        others = {
            field: None if data[field] is None else DataFile.from_dict(data[field], f"{context}.{field}")
            for field in ("in_graph", "ort", "in_graph_ort")
        }
        return cls(
            name=expect_string(data["name"], f"{context}.name"),
            file=expect_file(data["file"], f"{context}.file"),
            precision=expect_string(data["precision"], f"{context}.precision"),
            quantization=quantization,
            opset=expect_integer(data["opset"], f"{context}.opset", 1, 1000),
            sha256=expect_digest(data["sha256"], f"{context}.sha256"),
            size_bytes=expect_integer(data["size_bytes"], f"{context}.size_bytes", 1, 2**62),
            data=weights,
            **others,
            tolerance=expect_number(data["tolerance"], f"{context}.tolerance"),
            num_equal=expect_integer(data["num_equal"], f"{context}.num_equal", 0, 2**31),
            score_tolerance=None
            if data.get("score_tolerance") is None
            else expect_number(data["score_tolerance"], f"{context}.score_tolerance"),
            evidence=None if "evidence" not in data else Evidence.from_dict(data["evidence"], f"{context}.evidence"),
            features=None if "features" not in data else Features.from_dict(data["features"], f"{context}.features"),
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

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each of its files, by its path inside the bundle."""
        return {**{image.file: image.sha256 for image in self.images}, self.expected: self.sha256}

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        images = [{"file": image.file, "sha256": image.sha256} for image in self.images]
        return {"images": images, "expected": self.expected, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, data: Any, context: str = "golden") -> Golden:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, ("images", "expected", "sha256"))
        images = []
        for i, item in enumerate(expect_list(data["images"], f"{context}.images")):
            where = f"{context}.images[{i}]"
            item = expect_object(item, where, ("file", "sha256"))
            image = GoldenImage(
                file=expect_file(item["file"], f"{where}.file"), sha256=expect_digest(item["sha256"], f"{where}.sha256")
            )
            images.append(image)
        if not images:
            fail(f"{context}.images", "is empty")
        return cls(
            images=tuple(images),
            expected=expect_file(data["expected"], f"{context}.expected"),
            sha256=expect_digest(data["sha256"], f"{context}.sha256"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything that a bundle says about itself.

    Attributes:
        architecture: name, number of parameters, source and options of the network.
        weights: where the weights came from.
        contract: input, task and labels.
        variants: the model files, at least one, names unique.
        golden: images with known logits.
        parity: the chain of comparisons with PyTorch, a list of stages (``docs/bundle.md``).
        provenance: versions of everything that took part.
        runtime: the wheel of the runtime in the bundle, where that was asked for.
    """

    architecture: Mapping[str, Any]
    weights: Mapping[str, Any]
    contract: Contract
    variants: tuple[Variant, ...]
    golden: Golden
    parity: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    runtime: DataFile | None = None

    def variant(self, name: str) -> Variant:
        """The variant of that very name.

        Raises:
            InputError: naming those that the bundle has, if it is none of them.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise InputError(f"unknown variant {name!r}; this bundle has {', '.join(v.name for v in self.variants)}")

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file that the manifest lists, by its path inside the bundle."""
        found = self.golden.digests
        for one in self.variants:
            found |= one.digests
        return found if self.runtime is None else {**found, self.runtime.file: self.runtime.sha256}

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
            **({} if self.runtime is None else {"runtime": asdict(self.runtime)}),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Manifest:
        """Read and validate.

        Raises:
            ManifestError: naming the value that is wrong by its path, such as ``variants[1].sha256``.
        """
        if not isinstance(data, dict) or "schema_version" not in data:
            raise ManifestError("this is not an EdgePort manifest (no schema_version)")
        version = expect_integer(data["schema_version"], "schema_version", 1, 2**31)
        if version > SCHEMA_VERSION:
            fail(
                "schema_version",
                f"{version} is later than {SCHEMA_VERSION}, the latest that this version of edgeport reads; install a "
                "later EdgePort: from its source, or from the folder runtime of the bundle, if it has one",
            )
        fields = ("architecture", "weights", "contract", "variants", "golden", "parity", "provenance")
        data = expect_object(
            {k: v for k, v in data.items() if k != "schema_version"}, "", fields, optional=("runtime",)
        )
        architecture = expect_object(data["architecture"], "architecture", ("name", "num_params", "source", "options"))
        for name, value in expect_object(architecture["options"], "architecture.options").items():
            if not isinstance(value, str | bool):
                fail(f"architecture.options.{name}", f"is {value!r}, not a string, true or false")
        expect_string(architecture["name"], "architecture.name")
        expect_string(architecture["source"], "architecture.source")
        expect_integer(architecture["num_params"], "architecture.num_params", 0, 2**62)
        variants = tuple(
            Variant.from_dict(v, f"variants[{i}]") for i, v in enumerate(expect_list(data["variants"], "variants"))
        )
        if not variants:
            fail("variants", "is empty")
        if len({variant.name for variant in variants}) != len(variants):
            fail("variants", "two variants have the same name")
        return cls(
            architecture=architecture,
            weights=expect_object(data["weights"], "weights"),
            contract=Contract.from_dict(data["contract"]),
            variants=variants,
            golden=Golden.from_dict(data["golden"]),
            parity=tuple(
                expect_object(stage, f"parity[{i}]", ("stage",), exact=False)
                for i, stage in enumerate(expect_list(data["parity"], "parity"))
            ),
            provenance=_provenance(data["provenance"]),
            runtime=DataFile.from_dict(data["runtime"], "runtime") if "runtime" in data else None,
        )


def _provenance(value: Any) -> dict[str, Any]:
    provenance = expect_object(value, "provenance")
    for name, source in expect_object(provenance.get("sources", {}), "provenance.sources").items():
        expect_string(source, f"provenance.sources.{name}")
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
        raise ManifestError(f"{bundle} is not an EdgePort bundle: it has no {MANIFEST_NAME}") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None
    if len(text) > _MAX_MANIFEST_BYTES:
        raise ManifestError(f"{path} is larger than {_MAX_MANIFEST_BYTES} bytes, the most that a manifest may have")
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}") from None
    return Manifest.from_dict(data)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
