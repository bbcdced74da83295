"""Every architecture by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeport_models import alexnet, googlenet, googlenet_2014, inception, lenet, lenet_1998, resnet, vgg, vit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeport_models.spec import ModelSpec

__all__ = ["ALIASES", "ARCHITECTURES"]

ALIASES: Mapping[str, str] = MappingProxyType(
    {"lenet": "lenet5", "vgg": "vgg16", "inception": "googlenet", "resnet": "resnet50", "vit": "vit_b_16"}
)
"""Friendly names, and the architecture that each stands for."""

_FAMILIES = (lenet, lenet_1998, alexnet, vgg, googlenet, googlenet_2014, inception, resnet, vit)
_SPECS = {spec.name: spec for family in _FAMILIES for spec in family.SPECS}

ARCHITECTURES: Mapping[str, ModelSpec] = MappingProxyType(
    _SPECS | {alias: _SPECS[name] for alias, name in ALIASES.items()}
)
"""Name to specification, friendly names included."""
