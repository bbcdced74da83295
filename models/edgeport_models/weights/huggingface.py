"""ViT and ResNet of Hugging Face transformers.

ViT's blocks have two sets of names: those of transformers 4 and of every ``save_pretrained``
(``encoder.layer.0.attention.attention.query``), and those that transformers 5 has in memory and ``torch.save`` writes
(``layers.0.attention.q_proj``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from edgeport_models.weights.layout import Converted, Layout, rename
from edgeport_runtime.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["RESNET", "VIT"]

_EPSILON = 1e-12  # the default of ViTConfig.layer_norm_eps
_LAYER = r"encoder.layers.encoder_layer_\1"
_BLOCK = r"(?:vit\.)?(?:encoder\.layer|layers)\.(\d+)"
_VIT_RULES = (
    (r"(?:vit\.)?embeddings\.cls_token", "class_token"),
    (r"(?:vit\.)?embeddings\.position_embeddings", "encoder.pos_embedding"),
    (r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.(\w+)", r"conv_proj.\1"),
    (rf"{_BLOCK}\.layernorm_before\.(\w+)", rf"{_LAYER}.ln_1.\2"),
    (rf"{_BLOCK}\.layernorm_after\.(\w+)", rf"{_LAYER}.ln_2.\2"),
    (rf"{_BLOCK}\.attention\.(?:output\.dense|o_proj)\.(\w+)", rf"{_LAYER}.self_attention.out_proj.\2"),
    (rf"{_BLOCK}\.(?:intermediate\.dense|mlp\.fc1)\.(\w+)", rf"{_LAYER}.mlp.0.\2"),
    (rf"{_BLOCK}\.(?:output\.dense|mlp\.fc2)\.(\w+)", rf"{_LAYER}.mlp.3.\2"),
    (r"(?:vit\.)?layernorm\.(\w+)", r"encoder.ln.\1"),
    (r"classifier\.(\w+)", r"heads.head.\1"),
)
_PROJECTION = re.compile(
    rf"{_BLOCK}\.attention\.(?:attention\.)?(?P<part>query|key|value|[qkv]_proj)\.(?P<kind>weight|bias)"
)


def _is_vit(keys: Iterable[str]) -> bool:
    return any(_PROJECTION.fullmatch(key) or "patch_embeddings.projection." in key for key in keys)


def _convert_vit(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Converted:
    _expect(config, "model_type", ("vit",))
    _expect(config, "hidden_act", ("gelu",))
    epsilon = config.get("layer_norm_eps", _EPSILON)
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise WeightsError(f"config.json: layer_norm_eps is {epsilon!r}, not a number between 0 and 1")
    num_heads = config.get("num_attention_heads")
    if num_heads is not None and (type(num_heads) is not int or not 0 < num_heads <= 1024):
        raise WeightsError(f"config.json: num_attention_heads is {num_heads!r}, not a number from 1 to 1024")
    joined = _join_projections(rename(state, _VIT_RULES))
    return Converted(state=joined, layer_norm_eps=float(epsilon), num_heads=num_heads)


def _join_projections(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Query, key and value of each block one above the other; those of which one is missing stay as they are."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for key in state:
        match = _PROJECTION.fullmatch(key)
        if match:
            found.setdefault((match[1], match["kind"]), {})[match["part"][0]] = key
    for (layer, kind), keys in found.items():
        if len(keys) == 3 and len({state[key].shape for key in keys.values()}) == 1:
            parts = [state.pop(keys[part]) for part in "qkv"]
            state[f"encoder.layers.encoder_layer_{layer}.self_attention.in_proj_{kind}"] = torch.cat(parts)
    return state


def _layer_name(match: re.Match[str]) -> str:
    stage, block, index, kind, leaf = match.groups()
    name = "conv" if kind == "convolution" else "bn"
    return f"layer{int(stage) + 1}.{block}.{name}{int(index) + 1}.{leaf}"


def _shortcut_name(match: re.Match[str]) -> str:
    stage, block, kind, leaf = match.groups()
    return f"layer{int(stage) + 1}.{block}.downsample.{0 if kind == 'convolution' else 1}.{leaf}"


_STAGE = r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)"
_RESNET_RULES = (
    (r"(?:resnet\.)?embedder\.embedder\.convolution\.(\w+)", r"conv1.\1"),
    (r"(?:resnet\.)?embedder\.embedder\.normalization\.(\w+)", r"bn1.\1"),
    (rf"{_STAGE}\.layer\.(\d+)\.(convolution|normalization)\.(\w+)", _layer_name),
    (rf"{_STAGE}\.shortcut\.(convolution|normalization)\.(\w+)", _shortcut_name),
    (r"classifier\.1\.(\w+)", r"fc.\1"),
)


def _is_resnet(keys: Iterable[str]) -> bool:
    return any("embedder.embedder." in key or ".shortcut.normalization." in key for key in keys)


def _convert_resnet(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Converted:
    _expect(config, "model_type", ("resnet",))
    _expect(config, "hidden_act", ("relu",))
    # Both put a stride where torchvision's network has none.
    _expect(config, "downsample_in_bottleneck", (False,))
    _expect(config, "downsample_in_first_stage", (False,))
    return Converted(state=rename(state, _RESNET_RULES))


def _expect(config: Mapping[str, Any], key: str, allowed: tuple[Any, ...]) -> None:
    if key in config and config[key] not in allowed:
        choices = ", ".join(repr(value) for value in allowed)
        raise WeightsError(f"config.json: {key} is {config[key]!r}; EdgePort's network has {choices} only")


VIT = Layout("Hugging Face ViT", _is_vit, _convert_vit)
RESNET = Layout("Hugging Face ResNet", _is_resnet, _convert_resnet)
