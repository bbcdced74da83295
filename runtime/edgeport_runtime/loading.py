"""From a path to a loaded model: everything that is checked before the first prediction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from edgeport_runtime.contract import Contract
from edgeport_runtime.errors import InputError, ManifestError
from edgeport_runtime.machine import describe_machine
from edgeport_runtime.manifest import (
    CONTRACT_KEY,
    Manifest,
    Variant,
    bundle_file,
    load_manifest,
    sha256_of,
)
from edgeport_runtime.providers import resolve_device
from edgeport_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MEASUREMENTS_NAME", "LoadedModel", "load_model"]

MEASUREMENTS_NAME = "measurements.json"
_MAX_MEASUREMENTS_BYTES = 2**20


class LoadedModel(NamedTuple):
    """A session and what is known of it.

    Attributes:
        session: the loaded model.
        reopen: loads it once more, with another number of threads.
        contract: input and task.
        manifest: of the bundle; None for a lone ``.onnx``.
        variant: the one in use; None for a lone ``.onnx``.
        device: the one in use.
    """

    session: Session
    reopen: Callable[[int | None], Session]
    contract: Contract
    manifest: Manifest | None
    variant: Variant | None
    device: str


def load_model(path: Path, *, device: str, variant: str, threads: int | None) -> LoadedModel:
    """Load a bundle or a lone ``.onnx``; arguments and errors as ``Classifier.load``."""
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise InputError(f"threads is {threads!r}; give a whole number of at least 1, or None")
    provider = resolve_device(device)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a bundle (a folder made by export-model) or its .onnx file")
    if path.is_dir():
        manifest = load_manifest(path)
        chosen = _choose(manifest, variant, path)
        file = _verified_file(path, chosen)
        has_packed_weights = (chosen.quantization or {}).get("scheme") == "weights only"

        def reopen(threads: int | None) -> Session:
            return Session(file, provider=provider, threads=threads, unpack_weights=has_packed_weights)

        session = reopen(threads)
        _check_graph(session, manifest.contract, file)
        return LoadedModel(session, reopen, manifest.contract, manifest, chosen, provider.device)
    if variant != "auto":
        raise InputError(f"{path} is one model file; variant={variant!r} needs the bundle's folder")

    def reopen_file(threads: int | None) -> Session:
        return Session(path, provider=provider, threads=threads)

    session = reopen_file(threads)
    contract = _embedded_contract(session, path)
    _check_graph(session, contract, path)
    return LoadedModel(session, reopen_file, contract, None, None, provider.device)


def _choose(manifest: Manifest, name: str, bundle: Path) -> Variant:
    if name == "auto":
        name = _fastest_here(bundle, [v.name for v in manifest.variants]) or manifest.variants[0].name
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    raise InputError(f"unknown variant {name!r}; this bundle has {', '.join(v.name for v in manifest.variants)}")


def _fastest_here(bundle: Path, known: list[str]) -> str | None:
    """The variant that was measured to be the fastest, if that was on this machine and it is faster than ``fp32``."""
    try:
        with (bundle / MEASUREMENTS_NAME).open("rb") as file:
            measured = json.loads(file.read(_MAX_MEASUREMENTS_BYTES))
        if measured["machine"] != describe_machine():
            return None
        variants = {name: v for name, v in measured["variants"].items() if name in known and v.get("is_faster")}
        times = {name: float(v["latency_ms"]) for name, v in variants.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # it may be deleted, and nothing depends on it
    return min(times, key=lambda name: times[name]) if times else None


def _verified_file(bundle: Path, variant: Variant) -> Path:
    file = bundle_file(bundle, variant.file)
    expected = {variant.file: variant.sha256}
    if variant.data is not None:
        expected[variant.data.file] = variant.data.sha256
    for name, sha256 in expected.items():
        if sha256_of(bundle_file(bundle, name)) != sha256:
            raise ManifestError(f"{name} is not the file that was exported (its sha256 differs); copy the bundle again")
    return file


def _embedded_contract(session: Session, path: Path) -> Contract:
    text = session.metadata.get(CONTRACT_KEY)
    if text is None:
        raise ManifestError(f"{path} was not written by EdgePort: its metadata has no {CONTRACT_KEY}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {CONTRACT_KEY} is not JSON: {error}") from None
    return Contract.from_dict(data)


def _check_graph(session: Session, contract: Contract, path: Path) -> None:
    spec = contract.preprocess
    wanted = [spec.num_channels, spec.image_size, spec.image_size]
    is_batch_right = (
        isinstance(session.input_shape[0], str) if contract.batch is None else session.input_shape[0] == contract.batch
    )
    is_output_right = (session.output_name, session.output_shape[1:]) == (contract.output, [contract.num_outputs])
    if session.input_shape[1:] != wanted or not is_batch_right or not is_output_right:
        raise ManifestError(
            f"{path} maps {session.input_shape} to {session.output_name} {session.output_shape}, which is not what the "
            f"contract says: [{contract.batch or 'batch'}, {', '.join(map(str, wanted))}] to {contract.num_outputs} "
            f"{contract.output}"
        )
