"""From a path to a loaded model: everything that is checked before the first prediction."""

from __future__ import annotations

import contextlib
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.bundle.contract import Contract
from edgeport_runtime.bundle.files import bundle_file, check_digests
from edgeport_runtime.bundle.manifest import CONTRACT_KEY, QUANTIZATION_KEY, Manifest, Variant, load_manifest
from edgeport_runtime.bundle.schema import expect_object
from edgeport_runtime.engine.foreign import ForeignSession
from edgeport_runtime.engine.providers import CPU, PROVIDERS, select_device, unusable
from edgeport_runtime.engine.session import Session, remedy_for_foreign
from edgeport_runtime.errors import DeviceError, InputError, ManifestError, SessionError
from edgeport_runtime.loading.cache import find_prepared, find_tuned
from edgeport_runtime.loading.choice import (
    check_saturation,
    choose_variant,
    exact_variant,
    is_dynamic,
    saturates,
    stores_weights_only,
)
from edgeport_runtime.loading.foreign import asked_of, contract_of, read_options
from edgeport_runtime.loading.side import SideGraphs

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from edgeport_runtime.engine.providers import Provider
    from edgeport_runtime.engine.session import SessionSettings

__all__ = ["LoadedModel", "load_model", "settings_of"]


class LoadedModel(NamedTuple):
    """A session and what is known of it.

    Attributes:
        session: the loaded model.
        reopen: loads it once more, with other settings.
        contract: input and task.
        manifest: of the bundle; None for a lone ``.onnx``.
        variant: the one in use; None for a lone ``.onnx``.
        provider: what it runs on.
        reasons: why this device and this variant.
        has_dynamic_ranges: an image's outputs depend on the others of its call.
        side: the variant's graphs that tell more.
    """

    session: Session
    reopen: Callable[[SessionSettings], Session]
    contract: Contract
    manifest: Manifest | None
    variant: Variant | None
    provider: Provider
    reasons: tuple[str, ...]
    has_dynamic_ranges: bool
    side: SideGraphs


def load_model(
    path: Path,
    *,
    device: str,
    variant: str,
    settings: SessionSettings,
    is_exact: bool = False,
    contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    bring: Callable[[Iterable[str]], None] | None = None,
) -> LoadedModel:
    """Load a bundle or a lone ``.onnx``; arguments and errors as ``Classifier.load``.

    With ``is_exact`` the variant is the one of that very name: ``int8`` is then no more than a file. ``bring`` sees
    that files are in the bundle's folder, where that has only the manifest as yet.
    """
    threads = settings.threads
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise InputError(f"threads is {threads!r}; it must be a whole number of at least 1, or None")
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a bundle (a folder that export-model wrote) or one of its .onnx files"
        )
    load: Callable[[Path, str, str, SessionSettings], LoadedModel]
    if path.is_dir():
        if contract is not None:
            raise InputError(f"{path} is a folder; a contract is for a lone .onnx file, a bundle has its own")
        load = functools.partial(_load_bundle, is_exact=is_exact, bring=bring)
    elif contract is not None:
        load = functools.partial(_load_foreign, options=read_options(contract))
    else:
        load = _load_file
    try:
        return load(path, device, variant, settings)
    except DeviceError as error:
        if device != "auto" or settings.is_strict:
            raise
        # What `auto` chose is listed and does not load, as CUDA without its libraries.
        model = load(path, CPU.device, variant, settings)
        return model._replace(reasons=(f"the device chosen first did not load: {error}", *model.reasons))


def _load_bundle(
    path: Path,
    device: str,
    variant: str,
    settings: SessionSettings,
    *,
    is_exact: bool,
    bring: Callable[[Iterable[str]], None] | None,
) -> LoadedModel:
    manifest = load_manifest(path)
    provider, chosen, tuned_threads, reasons = _select(path, manifest, device, variant, is_exact=is_exact)
    if bring is not None:
        bring([chosen.file] if chosen.data is None else [chosen.file, chosen.data.file])
    settings = settings_of(chosen, manifest.contract, replace(settings, threads=settings.threads or tuned_threads))

    def reopen(settings: SessionSettings) -> Session:
        return _open(path, chosen, provider, settings)

    session = reopen(settings)
    if Contract.from_dict(_embedded(session, CONTRACT_KEY)) != manifest.contract:
        raise ManifestError(
            f"{path}: the contract in {chosen.file} is not the manifest's; one of them was altered after the export: "
            "copy the bundle again, or export again to change labels, thresholds or preprocessing"
        )
    _check_graph(session, manifest.contract)
    return LoadedModel(
        session,
        reopen,
        manifest.contract,
        manifest,
        chosen,
        provider,
        reasons,
        is_dynamic(chosen.quantization),
        SideGraphs(path, manifest, chosen, provider),
    )


def _load_file(path: Path, device: str, variant: str, settings: SessionSettings) -> LoadedModel:
    if variant != "auto":
        raise InputError(f"{path} is a single model file; variant={variant!r} needs the bundle's folder")
    provider, reasons = select_device(device)

    def reopen(settings: SessionSettings) -> Session:
        return Session(path, provider=provider, settings=settings)

    session = reopen(settings)
    contract = Contract.from_dict(_embedded(session, CONTRACT_KEY))
    _check_graph(session, contract)
    quantization = _embedded(session, QUANTIZATION_KEY) if QUANTIZATION_KEY in session.metadata else None
    check_saturation(quantization, provider, name=str(path))
    if stores_weights_only(quantization):
        session = reopen(replace(settings, unpack_weights=True))  # only the open file could tell
    side = SideGraphs(None, None, None, provider)
    return LoadedModel(session, reopen, contract, None, None, provider, reasons, is_dynamic(quantization), side)


def _load_foreign(
    path: Path, device: str, variant: str, settings: SessionSettings, *, options: Mapping[str, Any]
) -> LoadedModel:
    """A lone file that EdgePort did not write, with the contract that its user tells."""
    if variant != "auto":
        raise InputError(f"{path} is a single model file; variant={variant!r} needs the bundle's folder")
    provider, reasons = select_device(device)

    def reopen(settings: SessionSettings) -> ForeignSession:
        return ForeignSession(path, provider=provider, settings=settings, asked=asked_of(options))

    session = reopen(settings)
    if CONTRACT_KEY in session.metadata:
        raise InputError(f"{path} was written by EdgePort and holds its contract; omit the options that tell another")
    operators = {operator for names in (session.assignment or {}).values() for operator in names}
    # What ONNX Runtime makes of DynamicQuantizeLinear. Before 1.24 it does not tell, and each image is run by itself.
    has_dynamic_ranges = session.assignment is None or any("Dynamic" in operator for operator in operators)
    contract = contract_of(options, session)
    side = SideGraphs(None, None, None, provider)
    return LoadedModel(session, reopen, contract, None, None, provider, reasons, has_dynamic_ranges, side)


def settings_of(variant: Variant, contract: Contract, settings: SessionSettings) -> SessionSettings:
    """The settings with what the variant needs and allows."""
    return replace(
        settings,
        unpack_weights=stores_weights_only(variant.quantization),
        keeps_float32=variant.precision.endswith("float32"),
        is_replayed=contract.batch is not None and variant.precision in ("float32", "float16"),
    )


def _select(
    path: Path, manifest: Manifest, device: str, variant: str, *, is_exact: bool
) -> tuple[Provider, Variant, int | None, tuple[str, ...]]:
    """Device, variant, number of threads and the reasons: as tuned where that is what was asked for, else by rule."""
    tuned = find_tuned(path) if "auto" in (device, variant) else None
    if tuned is not None and device in ("auto", tuned.device) and variant in ("auto", tuned.variant):
        found = next((known for known in manifest.variants if known.name == tuned.variant), None)
        usable = next((p for p in PROVIDERS if p.device == tuned.device and unusable(p) is None), None)
        if found is not None and usable is not None and not saturates(found.quantization, usable):
            return usable, found, tuned.threads, ("run-model tune found this to be the fastest here",)
    provider, reasons = select_device(device)
    chosen, reason = (
        exact_variant(manifest, variant, provider=provider)
        if is_exact
        else choose_variant(manifest, variant, bundle=path, provider=provider)
    )
    return provider, chosen, None, (*reasons, f"{chosen.name}: {reason}")


def _open(bundle: Path, variant: Variant, provider: Provider, settings: SessionSettings) -> Session:
    """The variant as it was prepared here, or the bundle's, whose digests are checked while ONNX Runtime loads it."""
    prepared = find_prepared(bundle, variant) if provider == CPU else None
    if prepared is not None:
        with contextlib.suppress(SessionError):  # damaged: it would only have saved time
            return Session(prepared, provider=provider, settings=replace(settings, is_prepared=True))
    file, settings = bundle_file(bundle, variant.file), replace(settings, is_prepared=False)
    with ThreadPoolExecutor(1) as pool:
        check = pool.submit(check_digests, bundle, variant)
        try:
            return Session(file, provider=provider, settings=settings)
        finally:
            check.result()  # an altered file is told as that, whatever ONNX Runtime says of it


def _embedded(session: Session, key: str) -> dict[str, Any]:
    """An object of JSON in a model's metadata."""
    text = session.metadata.get(key)
    if text is None:
        raise ManifestError(
            f"{session.path} was not written by EdgePort: its metadata has no {key}{remedy_for_foreign(session.path)}"
        )
    try:
        return expect_object(json.loads(text), key)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{session.path}: {key} is not JSON: {error}") from None


def _check_graph(session: Session, contract: Contract) -> None:
    if len(session.input_shape) == 3:
        raise ManifestError(
            f"{session.path} takes pixels, for places without EdgePort; give the bundle, or the file without 'in-graph'"
        )
    wanted = list(contract.input_shape)
    is_batch_right = (
        isinstance(next(iter(session.input_shape), None), str)
        if contract.batch is None
        else session.input_shape[:1] == [contract.batch]
    )
    is_output_right = (session.output_name, session.output_shape[1:]) == (contract.output, [contract.num_outputs])
    if session.input_shape[1:] != wanted or not is_batch_right or not is_output_right:
        raise ManifestError(
            f"{session.path} maps {session.input_shape} to {session.output_name} {session.output_shape}, which is not "
            f"what the contract says: [{contract.batch or 'batch'}, {', '.join(map(str, wanted))}] to "
            f"{contract.num_outputs} {contract.output}"
        )
