"""The scripts beside the models of a bundle: a template each, with the constants of the manifest filled in."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeport_runtime.manifest import Manifest

__all__ = ["INFER_NAME", "write_infer"]

INFER_NAME = "infer.py"
_TEMPLATES = Path(__file__).parent / "templates"
_BEGIN, _END = "# BEGIN CONSTANTS\n", "# END CONSTANTS\n"


def write_infer(bundle: Path, manifest: Manifest) -> None:
    """Write ``infer.py``, which runs the bundle without EdgePort and gives what ``Classifier.predict`` gives."""
    template = (_TEMPLATES / INFER_NAME).read_text(encoding="utf-8")
    head, _, rest = template.partition(_BEGIN)
    block, _, tail = rest.partition(_END)
    comments = dict(_constant(line) for line in block.splitlines() if not line.startswith("#"))
    lines = [line for line in block.splitlines() if line.startswith("#")]
    for name, value in _constants(manifest).items():
        text = pprint.pformat(value, width=100, compact=True, sort_dicts=False)
        comment = comments[name] if "\n" not in text else ""
        lines.append(f"{name} = {text}{comment}")
    (bundle / INFER_NAME).write_text(head + "\n".join(lines) + "\n" + tail, encoding="utf-8")


def _constant(line: str) -> tuple[str, str]:
    """Name of a constant, and the comment behind it."""
    name, _, value = line.partition(" = ")
    _, mark, comment = value.partition("  # ")
    return name, mark + comment


def _constants(manifest: Manifest) -> dict[str, object]:
    contract, spec = manifest.contract, manifest.contract.preprocess
    files = {}
    for variant in manifest.variants:
        files[variant.name] = {variant.file: variant.sha256}
        if variant.data is not None:
            files[variant.name][variant.data.file] = variant.data.sha256
    return {
        "FILES": files,
        "TASK": contract.task,
        "LABELS": None if contract.labels is None else list(contract.labels),
        "THRESHOLDS": None if contract.thresholds is None else list(contract.thresholds),
        "OUTPUT": contract.output,
        "BATCH": contract.batch,
        "COLOR": spec.color,
        "RESIZE": spec.resize,
        "RESIZE_SIZE": spec.resize_size,
        "INTERPOLATION": spec.interpolation,
        "IMAGE_SIZE": spec.image_size,
        "SCALE": spec.scale,
        "MEAN": list(spec.mean),
        "STD": list(spec.std),
    }
