"""ViT of google-research/vision_transformer, whose ``.npz`` files name Flax parameters.

Shapes there: D width, A heads, d = D / A; kernels are input first, convolutions HWIO.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from edgeport_models.weights.layout import Converted, Layout, first_with
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["VIT"]

_EMBEDDING = "embedding/kernel"
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_QUERY = re.compile(r"Transformer/encoderblock_\d+/MultiHeadDotProductAttention_[01]/query/kernel")
# Flax numbered submodules through all classes (LayerNorm_2), and now numbers each class by itself (LayerNorm_1).
_PART = re.compile(
    r"(?P<norm>LayerNorm_(?P<place>[012]))/(?P<norm_kind>scale|bias)"
    r"|MultiHeadDotProductAttention_[01]/out/(?P<out>kernel|bias)"
    r"|MlpBlock_[03]/Dense_(?P<dense>[01])/(?P<dense_kind>kernel|bias)"
)
_ATTENTION = re.compile(r"MultiHeadDotProductAttention_[01]/(?P<part>query|key|value)/(?P<kind>kernel|bias)")
_KIND = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TOP = {
    "embedding/bias": "conv_proj.bias",
    "cls": "class_token",
    "Transformer/posembed_input/pos_embedding": "encoder.pos_embedding",
    "Transformer/encoder_norm/scale": "encoder.ln.weight",
    "Transformer/encoder_norm/bias": "encoder.ln.bias",
    "head/bias": "heads.head.bias",
}


def _matches(keys: Iterable[str]) -> bool:
    return any(key.startswith(("Transformer/", "embedding/")) for key in keys)


def _convert(state: Mapping[str, torch.Tensor], _config: Mapping[str, Any]) -> Converted:
    other = first_with(state, ("pre_logits/", "conv_root/", "gn_root/"))
    if other is not None:
        raise WeightsError(
            f"they are for a ViT with a representation layer or a ResNet root, which EdgePort does not have "
            f"(it holds {other}); give a file of a fine-tuned ViT"
        )
    out: dict[str, torch.Tensor] = {}
    heads: dict[tuple[str, str], dict[str, str]] = {}
    num_heads = None
    for key, value in state.items():
        if key == _EMBEDDING and value.ndim == 4:
            out["conv_proj.weight"] = value.permute(3, 2, 0, 1)
        elif key == "head/kernel" and value.ndim == 2:
            out["heads.head.weight"] = value.T
        elif key in _TOP:
            out[_TOP[key]] = value
        else:
            name = _block_key(key, value, heads)
            out[name] = _input_last(value) if name.endswith("weight") and value.ndim > 1 else value
        if _QUERY.fullmatch(key) and value.ndim == 3:
            num_heads = value.shape[1]
    return Converted(state=_join(out, heads), num_heads=num_heads)


def _block_key(key: str, value: torch.Tensor, heads: dict[tuple[str, str], dict[str, str]]) -> str:
    """EdgePort's name of a block's parameter; of projections only noted, because three of them make one."""
    block = _BLOCK.fullmatch(key)
    if block is None:
        return key
    layer = f"encoder.layers.encoder_layer_{block[1]}"
    attention = _ATTENTION.fullmatch(block[2])
    if attention and value.ndim == (3 if attention["kind"] == "kernel" else 2):
        heads.setdefault((layer, attention["kind"]), {})[attention["part"]] = key
        return key
    part = _PART.fullmatch(block[2])
    if part is None:
        return key
    if part["norm"]:
        return f"{layer}.ln_{1 if part['place'] == '0' else 2}.{_KIND[part['norm_kind']]}"
    if part["out"]:
        return f"{layer}.self_attention.out_proj.{_KIND[part['out']]}"
    return f"{layer}.mlp.{3 * int(part['dense'])}.{_KIND[part['dense_kind']]}"


def _input_last(kernel: torch.Tensor) -> torch.Tensor:
    """(..., output) to (output, ...): of the attention's output kernel (A, d, D), A and d become one."""
    return kernel.flatten(0, -2).T


def _join(out: dict[str, torch.Tensor], heads: dict[tuple[str, str], dict[str, str]]) -> dict[str, torch.Tensor]:
    """Kernels (D, A, d) and biases (A, d) of query, key and value to one matrix (3 D, D) and one vector."""
    for (layer, kind), keys in heads.items():
        if len(keys) == 3 and len({out[key].shape for key in keys.values()}) == 1:
            parts = [out.pop(keys[part]) for part in ("query", "key", "value")]
            flat = [part.flatten() if kind == "bias" else part.flatten(1).T for part in parts]
            out[f"{layer}.self_attention.in_proj_{_KIND[kind]}"] = torch.cat(flat)
    return out


VIT = Layout("google-research ViT", _matches, _convert)
