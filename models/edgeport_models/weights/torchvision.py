"""torchvision's layouts: EdgePort's own, and the names that its older ViT files have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_models.weights.layout import Converted, Layout, rename

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

__all__ = ["VIT_LINEAR"]


def _matches(keys: Iterable[str]) -> bool:
    return any(".mlp.linear_" in key for key in keys)


def _convert(state: Mapping[str, torch.Tensor], _config: Mapping[str, Any]) -> Converted:
    # torchvision's published ViT files are from before its perceptron became a Sequential.
    rules = ((r"(.+)\.mlp\.linear_1\.(\w+)", r"\1.mlp.0.\2"), (r"(.+)\.mlp\.linear_2\.(\w+)", r"\1.mlp.3.\2"))
    return Converted(state=rename(state, rules))


VIT_LINEAR = Layout("torchvision ViT", _matches, _convert)
