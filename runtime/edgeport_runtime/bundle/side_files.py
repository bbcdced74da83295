"""Files that go with a variant's model: data, and the graphs that tell more than its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from edgeport_runtime.bundle.schema import (
    expect_digest,
    expect_file,
    expect_integer,
    expect_number,
    expect_object,
    expect_string,
    fail,
)

__all__ = ["METHODS", "DataFile", "Evidence", "Features", "Method"]

Method: TypeAlias = Literal["cam", "grad-cam", "attention-rollout", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
"""How the region that speaks for an answer is found; only ``occlusion`` needs no graph of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A file that goes with a model: path inside the bundle, digest, and size."""

    file: str
    sha256: str
    size_bytes: int

    @classmethod
    def from_dict(cls, data: Any, context: str) -> DataFile:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, tuple(cls.__slots__))
        return cls(
            file=expect_file(data["file"], f"{context}.file"),
            sha256=expect_digest(data["sha256"], f"{context}.sha256"),
            size_bytes=expect_integer(data["size_bytes"], f"{context}.size_bytes", 1, 2**62),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """How the region that speaks for an answer of a variant is found.

    Attributes:
        method: ``cam``, ``grad-cam`` and ``attention-rollout`` have a graph; ``occlusion`` needs none.
        reason: why it is occlusion; None for the others.
        graph: the variant's network with the map as its second output; None for occlusion.
    """

    method: Method
    reason: str | None = None
    graph: DataFile | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        if self.graph is None:
            return {"method": self.method, "reason": self.reason}
        graph = self.graph
        return {"method": self.method, "file": graph.file, "sha256": graph.sha256, "size_bytes": graph.size_bytes}

    @classmethod
    def from_dict(cls, data: Any, context: str) -> Evidence:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        method = expect_object(data, context, ("method",), exact=False)["method"]
        if method not in METHODS:
            fail(f"{context}.method", f"is {method!r}, not one of {', '.join(METHODS)}")
        if method == "occlusion":
            data = expect_object(data, context, ("method", "reason"))
            return cls(method=method, reason=expect_string(data["reason"], f"{context}.reason"))
        return cls(method=method, graph=DataFile.from_dict({k: v for k, v in data.items() if k != "method"}, context))


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """The embedding before the last linear layer.

    Attributes:
        graph: the variant's network up to there.
        num_features: D of its output (B, D).
        relative_l2: distance from what PyTorch's layer read on the golden images: of the worst image, or of all
            together for a quantized variant.
    """

    graph: DataFile
    num_features: int
    relative_l2: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        graph = self.graph
        return {
            "file": graph.file,
            "sha256": graph.sha256,
            "size_bytes": graph.size_bytes,
            "num_features": self.num_features,
            "relative_l2": self.relative_l2,
        }

    @classmethod
    def from_dict(cls, data: Any, context: str) -> Features:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, (*DataFile.__slots__, "num_features", "relative_l2"))
        return cls(
            graph=DataFile.from_dict({name: data[name] for name in DataFile.__slots__}, context),
            num_features=expect_integer(data["num_features"], f"{context}.num_features", 1, 2**31),
            relative_l2=expect_number(data["relative_l2"], f"{context}.relative_l2"),
        )
