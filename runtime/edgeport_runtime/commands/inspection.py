"""What is inside of a file or of a bundle's variant, by the build machine's reader of graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["TARGETS", "inspect", "print_inspection"]

TARGETS = ("tensorrt", "openvino", "coreml", "tflite", "ort-mobile", "webgpu", "opencv")
_NAME_WIDTH = 40


def inspect(path: Path, *, variant: str | None = None, target: str | None = None) -> dict[str, Any]:
    """Count what a graph holds, and find what would keep it from a target.

    Args:
        path: of a bundle or an ``.onnx`` file.
        variant: of a bundle; None takes its first, ``fp32``.
        target: one of ``TARGETS``, or None.

    Returns:
        ``file``, what ``edgeport_export.inspection.layers.Inspection`` has, and with a target ``target`` and
        ``limits``: a list of ``what``, ``count`` (nodes, 0 for what is no node), ``effect`` and ``source``.

    Raises:
        InputError: if the file is no ONNX model, or there is no such variant.
        ManifestError: if the bundle's file is not the one that was exported.
        SessionError: if the package onnx is missing.
    """
    try:
        from edgeport_export.inspection.layers import inspect_model, read_graph
        from edgeport_export.inspection.limits import find_limits
    except ModuleNotFoundError as error:
        name = str(error.name)
        remedy = "pip install . in EdgePort's source folder" if name.startswith("edgeport") else f"pip install {name}"
        raise SessionError(
            f"run-model inspect reads graphs with a package that is not here, {name}: {remedy}"
        ) from None
    if path.is_dir():
        manifest = load_manifest(path)
        chosen = manifest.variants[0] if variant is None else manifest.variant(variant)
        path = checked_file(path, chosen.file, chosen.sha256)
    model = read_graph(path)
    found = {"file": str(path), **inspect_model(model, name=str(path)).to_dict()}
    if target is not None:
        limits = find_limits(model, target)  # type: ignore[arg-type]
        found |= {"target": target, "limits": [limit.to_dict() for limit in limits]}
    return found


def print_inspection(found: dict[str, Any]) -> None:
    """Print it: in all, then by layer, then the limits."""
    for line in [*_summary(found), "", *_layers(found["layers"])]:
        print(line)
    if "target" not in found:
        return
    print()
    if not found["limits"]:
        print(f"{found['target']}: nothing is known that keeps it from there")
    for limit in found["limits"]:
        count = f" ({limit['count']} nodes)" if limit["count"] else ""
        print(f"{found['target']}: {limit['what']}{count}: {limit['effect']}; {limit['source']}")


def _summary(found: dict[str, Any]) -> list[str]:
    domains = "".join(f", {name} {version}" for name, version in found["domains"].items())
    lines = [
        f"file           {found['file']}",
        f"format         opset {found['opset']}{domains}, IR {found['ir_version']}, by {found['producer'] or 'nobody'}",
        f"operators      {', '.join(f'{count} {name}' for name, count in found['operators'].items())}",
        f"parameters     {found['num_parameters']:,} in {_size(found['parameter_bytes'])}, "
        f"{found['quantized_parameters_share']:.0%} of them in at most 8 bits",
        f"multiply-adds  {found['multiply_adds']:,} an image, {found['quantized_share']:.0%} of them in integers",
        f"activations    {_size(found['activation_bytes'])} an image, at most "
        f"{_size(found['peak_activation_bytes'])} at one time",
    ]
    if found["num_unknown"]:
        lines.append(f"not counted    {found['num_unknown']} values whose shape the file does not tell")
    return lines


def _layers(layers: Sequence[dict[str, Any]]) -> list[str]:
    rows = [("layer", "operator", "output", "multiply-adds", "parameters", "activations", "")]
    rows += [
        (
            _short(layer["name"]),
            layer["operator"],
            "?" if layer["shape"] is None else "x".join(map(str, layer["shape"])),
            f"{layer['multiply_adds']:,}",
            f"{layer['num_parameters']:,}",
            "?" if layer["activation_bytes"] is None else _size(layer["activation_bytes"]),
            "int" if layer["is_quantized"] else "",
        )
        for layer in layers
        if layer["multiply_adds"] or layer["num_parameters"]
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([*map(str.ljust, row[:3], widths[:3]), *map(str.rjust, row[3:], widths[3:])]).rstrip() for row in rows
    ]


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"...{name[3 - _NAME_WIDTH :]}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
