"""A static page that runs a bundle in the browser: nothing is fetched but from its own folder."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from edgeport_runtime.accuracy.golden import expected_of
from edgeport_runtime.bundle.files import checked_file, sha256_of
from edgeport_runtime.bundle.manifest import GoldenImage, Manifest, Variant, load_manifest
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import sides_of

__all__ = ["make_site", "site_server"]

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
_READ_BY_BROWSERS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP"}
_READ_MODES = ("1", "L", "P", "RGB")
# What an in-graph stage may differ from the runtime (docs/bundle.md, parity) where the build machine could not run it.
_IN_GRAPH_L2, _MAX_TOLERANCE = 5e-2, 0.99
_WORKER, _VERSION = "sw.js", "VERSION"
_REMEDY = "npm install --ignore-scripts onnxruntime-web, then --onnxruntime-web node_modules/onnxruntime-web"


def make_site(bundle: Path, output: Path, *, variant: str = "fp32", engine: Path, title: str | None = None) -> int:
    """Write the page.

    Args:
        bundle: a folder made with ``--preprocess in-graph``.
        output: the folder to make.
        variant: which of the bundle's variants.
        engine: the npm package onnxruntime-web, or its ``dist`` folder.
        title: what the page is called; None takes the name of the architecture.

    Returns:
        Size in bytes of all that was written.

    Raises:
        InputError: if the variant has no preprocessing in its graph, the engine is incomplete, or something is there.
        ManifestError: if the bundle is incomplete or altered.
        OSError: if the folder cannot be written; then nothing is left of it.
    """
    manifest = load_manifest(bundle)
    chosen = manifest.variant(variant)
    model = _model(bundle, chosen)
    golden = _golden(bundle, manifest, chosen)
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
        (part / "golden").mkdir()
        for image in golden["images"]:
            shutil.copyfile(bundle / image["file"], part / image["file"])
        described = {**_describe(manifest, model), "title": title or manifest.architecture["name"], "golden": golden}
        (part / "bundle.json").write_text(json.dumps(described, allow_nan=False), encoding="ascii")
        _set_version(part)
        for path in [part, *part.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)  # a server of another user must be able to read them
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return size


def site_server(site: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page for this machine alone, at 127.0.0.1; whoever starts it closes it.

    Its headers let the page use threads, which need memory that is shared.

    Raises:
        InputError: if the port is taken.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(site)))
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); choose another: --serve PORT") from None


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def _set_version(site: Path) -> None:
    """Another page has another service worker, which lets go of what the one before kept."""
    digests = "".join(sha256_of(path) for path in sorted(site.rglob("*")) if path.is_file())
    worker = site / _WORKER
    text = worker.read_text(encoding="utf-8")
    version = hashlib.sha256(digests.encode()).hexdigest()[:16]
    worker.write_text(text.replace(_VERSION, version, 1), encoding="utf-8")


def _golden(bundle: Path, manifest: Manifest, variant: Variant) -> dict[str, Any]:
    """The golden images that browsers read as the runtime does, PyTorch's outputs for them, and what must be met."""
    stage = next((dict(s) for s in manifest.parity if s["stage"] == f"in-graph {variant.name}"), {})
    allowed, agreement = _IN_GRAPH_L2, 0.0
    if "limits" in stage:
        allowed, agreement = float(stage["limits"]["relative_l2"]), float(stage["agreement"])
    expected_BK, images = expected_of(bundle, manifest), manifest.golden.images
    read = [i for i, image in enumerate(images) if _is_read(bundle, image)]
    return {
        "images": [{"file": images[i].file, "sha256": images[i].sha256} for i in read],
        "expected": [expected_BK[i].tolist() for i in read],
        "tolerance": min(variant.tolerance + allowed, _MAX_TOLERANCE),
        "max_flips": len(images) - variant.num_equal + round((1 - agreement) * len(images)),
    }


def _is_read(bundle: Path, image: GoldenImage) -> bool:
    """Not so those with transparency, below which a canvas keeps no colours, of 16 bits, or of printing inks."""
    kind = _READ_BY_BROWSERS.get(Path(image.file).suffix.lower())
    if kind is None:
        return False
    with Image.open(checked_file(bundle, image.file, image.sha256), formats=[kind]) as opened:
        return opened.mode in _READ_MODES and not opened.has_transparency_data


def _describe(manifest: Manifest, model: Path) -> dict[str, Any]:
    """What the page needs to know of the model."""
    contract, spec = manifest.contract, manifest.contract.preprocess
    return {
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
