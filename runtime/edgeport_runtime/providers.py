"""The devices that a session can run on: one table, one entry each."""

from __future__ import annotations

from typing import NamedTuple

from edgeport_runtime.errors import InputError

__all__ = ["PROVIDERS", "Provider", "resolve_device"]


class Provider(NamedTuple):
    """A device by its name, and ONNX Runtime's name for what executes there."""

    device: str
    ort_name: str


PROVIDERS = (Provider("cpu", "CPUExecutionProvider"),)


def resolve_device(device: str) -> Provider:
    """The provider for a device name; ``auto`` takes the first of the table.

    Raises:
        InputError: if there is no such device.
    """
    if device == "auto":
        return PROVIDERS[0]
    for provider in PROVIDERS:
        if provider.device == device:
            return provider
    raise InputError(f"unknown device {device!r}; choose one of auto, {', '.join(p.device for p in PROVIDERS)}")
