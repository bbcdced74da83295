"""Chooses the variant of a bundle that runs: by name, by what was measured on this machine, or by rule."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.engine.machine import describe_machine, instruction_sets, is_x86
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.engine.saturation import adds_in_16_bits, has_vnni
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import Manifest, Variant
    from edgeport_runtime.engine.providers import Provider

__all__ = [
    "MEASUREMENTS_NAME",
    "Choice",
    "check_saturation",
    "choose_variant",
    "exact_variant",
    "is_dynamic",
    "read_json",
    "saturates",
    "stores_weights_only",
]

MEASUREMENTS_NAME = "measurements.json"
_MAX_JSON_BYTES = 2**20
_OPENVINO = "int8-openvino"
_WITH_7_BITS = "cpu-avx2"  # the target whose weights are small enough for sums in 16 bits


class Choice(NamedTuple):
    """A variant, and why it was chosen."""

    variant: Variant
    reason: str


def choose_variant(manifest: Manifest, name: str, *, bundle: Path, provider: Provider) -> Choice:
    """The variant that a user asks for.

    Args:
        manifest: of the bundle.
        name: of a variant; ``int8`` is the best int8 variant for the device; ``auto`` is the fastest if that was
            measured on this machine, else what was fastest elsewhere if this machine has the instructions it is made
            for, else ``fp32``; on OpenVINO the variant made for it, where the processor has the instructions.
        bundle: the folder.
        provider: what it is to run on.

    Raises:
        InputError: if there is no such variant, or its int8 arithmetic could saturate on this processor.
    """
    if name == "auto":
        return _automatic({variant.name: variant for variant in manifest.variants}, bundle, provider)
    if name == "int8":
        return _best_int8(manifest, provider)
    return exact_variant(manifest, name, provider=provider)


def exact_variant(manifest: Manifest, name: str, *, provider: Provider) -> Choice:
    """The variant of that very name; what measures or compares a file must not be given another.

    Raises:
        InputError: as ``choose_variant``.
    """
    variant = manifest.variant(name)
    check_saturation(variant.quantization, provider, name=f"variant {name!r}")
    return Choice(variant, "requested")


def is_dynamic(quantization: Mapping[str, Any] | None) -> bool:
    """True if the ranges of values are taken from each call's input, and so from all of its images together."""
    return (quantization or {}).get("scheme") == "dynamic"


def stores_weights_only(quantization: Mapping[str, Any] | None) -> bool:
    """True if weights are stored in int8 and everything is computed in float."""
    return (quantization or {}).get("scheme") == "weights only"


def saturates(quantization: Mapping[str, Any] | None, provider: Provider) -> bool:
    """True if products of a variant's int8 arithmetic could overflow the 16 bits that this processor adds them in.

    Args:
        quantization: as the manifest and the model's metadata describe it; None for float models.
        provider: what the variant is to run on.
    """
    target = (quantization or {}).get("target")
    if provider.ort_name != CPU.ort_name or target is None or target == _WITH_7_BITS:
        return False
    return adds_in_16_bits()


def check_saturation(quantization: Mapping[str, Any] | None, provider: Provider, *, name: str) -> None:
    """Raise InputError if ``saturates``; the message begins with ``name``."""
    if saturates(quantization, provider):
        raise InputError(
            f"{name} could saturate on this processor, which has no VNNI and no AMX instructions; "
            "export one for it with --target cpu-avx2"
        )


def _best_int8(manifest: Manifest, provider: Provider) -> Choice:
    variants = {variant.name: variant for variant in manifest.variants}
    if provider.ort_name == "OpenVINOExecutionProvider":
        order = [_OPENVINO, "int8"]
    elif provider.ort_name == CPU.ort_name and not is_x86():
        order = ["int8-arm64", "int8"]
    else:
        order = ["int8", "int8-avx2"]
    order += [name for name in variants if name.startswith("int8-") and name != "int8-weights"]
    present = [name for name in order if name in variants]
    for name in present:
        if not saturates(variants[name].quantization, provider):
            return Choice(variants[name], f"the int8 variant for {provider.device} here")
    return exact_variant(manifest, next(iter(present), "int8"), provider=provider)  # raises: it says what is wrong


def _automatic(variants: dict[str, Variant], bundle: Path, provider: Provider) -> Choice:
    first = next(iter(variants.values()))
    measured = read_json(bundle / MEASUREMENTS_NAME)
    if provider.ort_name == "OpenVINOExecutionProvider" and _OPENVINO in variants and _suits(variants[_OPENVINO]):
        return Choice(variants[_OPENVINO], "made for OpenVINO and this processor's instructions")
    if provider.ort_name != CPU.ort_name or measured is None:
        return Choice(first, f"no variant was measured on {provider.device}")
    try:
        faster = {
            name: time
            for name, entry in measured["variants"].items()
            if name in variants and entry.get("is_faster") and not saturates(variants[name].quantization, provider)
            if math.isfinite(time := float(entry["latency_ms"]))
        }
        is_here = measured["machine"] == describe_machine()
        cpu = str(measured["machine"]["cpu"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Choice(first, "measurements.json cannot be read")
    if not is_here:
        faster = {name: time for name, time in faster.items() if _suits(variants[name])}
    if not faster:
        where = "on this machine" if is_here else f"on another machine ({cpu}) for these instructions"
        return Choice(first, f"no variant was measured to be faster {where}")
    name = min(faster, key=lambda name: faster[name])
    where = "on this machine" if is_here else f"on another machine ({cpu}), and this one has the instructions for it"
    return Choice(variants[name], f"measured to be the fastest {where}")


def _suits(variant: Variant) -> bool:
    """True if this processor is known to have the instructions that an int8 variant is made for."""
    target = (variant.quantization or {}).get("target")
    if target == "arm64":
        return bool((instruction_sets() or frozenset()) & {"asimddp", "i8mm"})
    return target in ("cpu", "openvino") and has_vnni()


def read_json(path: Path) -> Any:
    """A small JSON file that nothing depends on; None if it is missing, damaged, or not small."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
