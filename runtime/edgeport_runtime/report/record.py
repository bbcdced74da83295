"""What the export alone knows of a bundle; a report that is made again on a device keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.schema import expect_choice, expect_integer, expect_list, expect_object, expect_string
from edgeport_runtime.errors import ManifestError
from edgeport_runtime.report.layers import Layer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGE_NAME", "REPORT_NAME", "SCHEMA_VERSION", "ExportRecord", "read_record"]

REPORT_NAME, PAGE_NAME = "report.json", "report.html"
SCHEMA_VERSION = 1
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRecord:
    """What was true when the bundle was made.

    Attributes:
        golden: the golden images are the user's own ``images``, or ``synthetic``.
        layers: of the network, in the graph's order.
        notes: what the export told its user.
        command: the command that makes the bundle again.
        seconds: how long it took, rounded.
    """

    golden: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    command: str
    seconds: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "golden": self.golden,
            "layers": [layer.to_dict() for layer in self.layers],
            "notes": list(self.notes),
            "command": self.command,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, data: Any, context: str = "export") -> ExportRecord:
        """Read and validate; raises ManifestError naming the value that is wrong."""
        data = expect_object(data, context, tuple(cls.__slots__))
        layers, notes = expect_list(data["layers"], f"{context}.layers"), expect_list(data["notes"], f"{context}.notes")
        return cls(
            golden=expect_choice(data["golden"], f"{context}.golden", ("images", "synthetic")),
            layers=tuple(Layer.from_dict(layer, f"{context}.layers[{i}]") for i, layer in enumerate(layers)),
            notes=tuple(expect_string(note, f"{context}.notes[{i}]") for i, note in enumerate(notes)),
            command=expect_string(data["command"], f"{context}.command"),
            seconds=expect_integer(data["seconds"], f"{context}.seconds", 0, 2**40),
        )


def read_record(bundle: Path) -> ExportRecord | None:
    """What the bundle's ``report.json`` keeps of its export; None where there is no such file.

    Raises:
        ManifestError: if it is there and not as ``docs/report.md`` says.
    """
    path = bundle / REPORT_NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(text) > _MAX_BYTES:
        raise ManifestError(f"{path} is larger than {_MAX_BYTES} bytes; delete it, or copy the bundle again")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON ({error}); delete it, or copy the bundle again") from None
    document = expect_object(data, REPORT_NAME, ("export",), exact=False)
    return ExportRecord.from_dict(document["export"], f"{REPORT_NAME}: export")
