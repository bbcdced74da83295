"""A static page that runs a bundle in the browser: nothing is fetched but from its own folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgeport_runtime.bundle.files import checked_file, sha256_of
from edgeport_runtime.bundle.manifest import Manifest, Variant, load_manifest
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import sides_of

__all__ = ["make_site"]

_PAGE = Path(__file__).parent / "site"
_MODEL = "model.onnx"
# WebAssembly with SIMD, and the build with WebGPU; a browser loads one of the two.
_ENGINE = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_REMEDY = "npm install --ignore-scripts onnxruntime-web, then --onnxruntime-web node_modules/onnxruntime-web"


def make_site(bundle: Path, output: Path, *, variant: str = "fp32", engine: Path) -> int:
    """Write the page.

    Args:
        bundle: a folder made with ``--preprocess in-graph``.
        output: the folder to make.
        variant: which of the bundle's variants.
        engine: the npm package onnxruntime-web, or its ``dist`` folder.

    Returns:
        Size in bytes of all that was written.

    Raises:
        InputError: if the variant has no preprocessing in its graph, the engine is incomplete, or something is there.
        ManifestError: if the bundle is incomplete or altered.
        OSError: if the folder cannot be written; then nothing is left of it.
    """
    manifest = load_manifest(bundle)
    model = _model(bundle, manifest.variant(variant))
    dist = engine / "dist" if (engine / "dist").is_dir() else engine
    missing = [name for name in _ENGINE if not (dist / name).is_file()]
    if missing:
        raise InputError(f"{engine} is not the npm package onnxruntime-web: it lacks {missing[0]}; {_REMEDY}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} already exists; choose a folder that does not")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        for page in _PAGE.iterdir():
            shutil.copyfile(page, part / page.name)
        shutil.copyfile(model, part / _MODEL)
        (part / "ort").mkdir()
        for name in _ENGINE:
            shutil.copyfile(dist / name, part / "ort" / name)
        (part / "bundle.json").write_text(json.dumps(_describe(manifest, model)), encoding="ascii")
        for path in [part, *part.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)  # a server of another user must be able to read them
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return size


def _describe(manifest: Manifest, model: Path) -> dict[str, Any]:
    """What the page needs to know of the model."""
    contract, spec = manifest.contract, manifest.contract.preprocess
    return {
        "name": str(manifest.architecture["name"]),
        "model": _MODEL,
        "size_bytes": model.stat().st_size,
        "sha256": sha256_of(model),
        "channels": len(spec.pixel_mode),
        "covered_sides": sides_of(spec.resize_size) if spec.resize == "shorter" else None,
        "task": contract.task,
        "output": contract.output,
        "num_outputs": contract.num_outputs,
        "num_classes": contract.num_classes,
        "labels": None if contract.labels is None else list(contract.labels),
        "thresholds": None if contract.thresholds is None else list(contract.thresholds),
    }


def _model(bundle: Path, variant: Variant) -> Path:
    if variant.in_graph is None:
        raise InputError(
            f"variant {variant.name} takes preprocessed values; export the bundle again with --preprocess in-graph"
        )
    if variant.data is not None:
        raise InputError(f"variant {variant.name} is larger than 2 GB, which browsers cannot load")
    return checked_file(bundle, variant.in_graph.file, variant.in_graph.sha256)
