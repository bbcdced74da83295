"""The scripts beside a bundle's models: each is a template with the manifest's constants filled in."""

from __future__ import annotations

import pprint
import string
from pathlib import Path
from typing import TYPE_CHECKING

from edgeport_runtime.loading.choice import stores_weights_only
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from edgeport_runtime.bundle.manifest import Manifest
    from edgeport_runtime.pixels.preprocess import Size

__all__ = ["write_c_program", "write_infer"]

_TEMPLATES = Path(__file__).parent / "templates"


def write_infer(bundle: Path, manifest: Manifest) -> None:
    """Write ``infer.py``, which runs the bundle without EdgePort and gives what ``Classifier.predict`` gives."""
    before, block, after = _parts("infer.py", "# BEGIN CONSTANTS\n", "# END CONSTANTS\n")
    comments = dict(_constant(line) for line in block.splitlines() if not line.startswith("#"))
    lines = [line for line in block.splitlines() if line.startswith("#")]
    for name, value in _constants(manifest).items():
        text = pprint.pformat(value, width=100, compact=True, sort_dicts=False)
        comment = comments[name] if "\n" not in text else ""
        lines.append(f"{name} = {text}{comment}")
    (bundle / "infer.py").write_text(before + "\n".join(lines) + "\n" + after, encoding="utf-8")


def write_c_program(bundle: Path, manifest: Manifest) -> None:
    """Write ``infer.c`` and its ``Makefile``, for variants that have their preprocessing in the graph."""
    before, _, after = _parts("infer.c", "/* BEGIN CONSTANTS */\n", "/* END CONSTANTS */\n")
    contract, first = manifest.contract, manifest.variants[0].in_graph
    spec = contract.preprocess
    assert first is not None
    height, width = sides_of(spec.resize_size) if spec.resize == "shorter" else (0, 0)
    labels = contract.labels or [None] * contract.num_classes
    thresholds = contract.thresholds or (0.0,)
    if len(thresholds) != contract.num_outputs:
        thresholds = thresholds[:1] * contract.num_outputs
    lines = [
        f"#define MODEL {_c_string(first.file)}",
        f"#define OUTPUT {_c_string(contract.output)}",
        f"#define TASK {contract.task.upper()}",
        f"#define NUM_OUTPUTS {contract.num_outputs}",
        f"#define COVERED_HEIGHT {height}",
        f"#define COVERED_WIDTH {width}",
        f"#define CHANNELS {len(spec.pixel_mode)}",
        f"#define BITS {spec.bits or 0}",
        "static const char *const LABELS[] = {",
        *(f"    {'NULL' if label is None else _c_string(label)}," for label in labels),
        "};",
        f"static const double THRESHOLDS[NUM_OUTPUTS] = {{{', '.join(map(repr, thresholds))}}};",
    ]
    (bundle / "infer.c").write_text(before + "\n".join(lines) + "\n" + after, encoding="ascii")
    (bundle / "Makefile").write_bytes((_TEMPLATES / "Makefile").read_bytes())


def _parts(template: str, begin: str, end: str) -> tuple[str, str, str]:
    """A template before, between and after the marks of its constants."""
    before, _, rest = (_TEMPLATES / template).read_text(encoding="utf-8").partition(begin)
    block, _, after = rest.partition(end)
    return before, block, after


def _c_string(text: str) -> str:
    """A C literal: what is not a plain character as octal bytes of UTF-8, which no following digit can lengthen."""
    plain = frozenset(string.ascii_letters + string.digits + " ._-,;:()[]{}/+*=<>!#%&'|~^@$`")
    octal = {c: "".join(f"\\{byte:03o}" for byte in c.encode(errors="replace")) for c in set(text) - plain}
    return '"' + "".join(octal.get(c, c) for c in text) + '"'


def _constant(line: str) -> tuple[str, str]:
    """Name of a constant, and the comment behind it."""
    name, _, value = line.partition(" = ")
    _, mark, comment = value.partition("  # ")
    return name, mark + comment


def _size(size: Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)


def _constants(manifest: Manifest) -> dict[str, object]:
    contract, spec = manifest.contract, manifest.contract.preprocess
    files = {}
    for variant in manifest.variants:
        files[variant.name] = {variant.file: variant.sha256}
        if variant.data is not None:
            files[variant.name][variant.data.file] = variant.data.sha256
    return {
        "FILES": files,
        "UNPACKED": [v.name for v in manifest.variants if stores_weights_only(v.quantization)],
        "TASK": contract.task,
        "LABELS": None if contract.labels is None else list(contract.labels),
        "THRESHOLDS": None if contract.thresholds is None else list(contract.thresholds),
        "OUTPUT": contract.output,
        "BATCH": contract.batch,
        "COLOR": spec.color,
        "RESIZE": spec.resize,
        "RESIZE_SIZE": _size(spec.resize_size),
        "INTERPOLATION": spec.interpolation,
        "IMAGE_SIZE": _size(spec.image_size),
        "PAD_COLOR": None if spec.pad_color is None else list(spec.pad_color),
        "SCALE": spec.scale,
        "MEAN": list(spec.mean),
        "STD": list(spec.std),
        "BITS": spec.bits,
        "CROP_OFFSET": spec.crop_offset,
    }
