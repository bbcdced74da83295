"""Which networks `export_libraries.py` exports: the smallest of every family, and small ones of transformers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

NUM_CLASSES = 1000  # of timm's networks that come without a head
_IMAGE_SIZE = 224

_VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_STAGES = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
_WINDOWS = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
_PERCEIVER = {"num_latents": 32, "d_latents": 64, "num_self_attends_per_block": 2, "num_cross_attention_heads": 1}
# Sizes in place of those of the library's default configuration, by model_type, or by class.
_SMALL: dict[str, dict[str, Any]] = {
    "beit": _VIT,
    "bit": {"depths": [1, 1, 1, 1]},
    "clip": {"vision_config": _VIT},
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "cvt": {"embed_dim": [16, 32, 64], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    "data2vec-vision": _VIT,
    "deit": _VIT,
    "dinat": _WINDOWS,
    "dinov2": _VIT,
    "dinov2_with_registers": _VIT,
    "donut-swin": _WINDOWS,
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": _IMAGE_SIZE},
    "focalnet": {"embed_dim": 24, "hidden_sizes": [48, 96, 192, 192], "depths": [1, 1, 2, 1]},
    "hgnet_v2": {
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256, 512],
        "stage_mid_channels": [16, 32, 64, 128],
        "stage_out_channels": [64, 256, 512, 1024],
        "hidden_sizes": [64, 256, 512, 1024],
        "depths": [1, 1, 2, 1],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_numb_of_layers": [3, 3, 3, 3],
        "embedding_size": 16,
    },
    "hiera": _WINDOWS,
    "ijepa": _VIT,
    "imagegpt": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "metaclip_2": {"vision_config": _VIT},
    "mobilenet_v1": {"depth_multiplier": 0.5},
    "mobilenet_v2": {"depth_multiplier": 0.5},
    "mobilevit": {"hidden_sizes": [64, 80, 96], "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320]},
    "mobilevitv2": {"width_multiplier": 0.5},
    "PerceiverForImageClassificationLearned": {**_PERCEIVER, "d_model": 512, "image_size": _IMAGE_SIZE},
    "PerceiverForImageClassificationFourier": {**_PERCEIVER, "d_model": 261},
    "PerceiverForImageClassificationConvProcessing": {**_PERCEIVER, "d_model": 322},
    "poolformer": _STAGES,
    "pvt": {"hidden_sizes": [16, 32, 80, 128]},
    "regnet": {**_STAGES, "embedding_size": 16, "groups_width": 16},
    "resnet": {**_STAGES, "embedding_size": 16, "layer_type": "basic"},
    "shieldgemma2": {
        "vision_config": _VIT,
        "text_config": {**_VIT, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000},
    },
    "siglip": {"vision_config": _VIT},
    "siglip2": {"vision_config": _VIT},
    "swiftformer": {"depths": [1, 1, 2, 1], "embed_dims": [16, 32, 48, 64]},
    "swin": _WINDOWS,
    "swinv2": _WINDOWS,
    "timm_wrapper": {"architecture": "resnet10t", "num_labels": 10},
    "vit": _VIT,
    "vit_msn": _VIT,
}


class Network(NamedTuple):
    """What is exported: its reference, and the library's module that defines it; of transformers, ``hf:CLASS``."""

    reference: str
    family: str


def load_libraries() -> None:
    """Bring torchvision's Python half, where its compiled one does not load."""
    if importlib.util.find_spec("tvshim") is not None:
        importlib.import_module("tvshim")


def every_network() -> list[Network]:
    """Of all three libraries; takes minutes, because every network of timm is built once, without values."""
    load_libraries()
    return [*_of_torchvision(), *_of_timm(), *_of_transformers()]


def _of_torchvision() -> list[Network]:
    from torchvision import models

    families = defaultdict(list)
    for name in models.list_models(module=models):
        size = models.get_model_weights(name).DEFAULT.meta["num_params"]
        families[models.get_model_builder(name).__module__].append((size, name))
    return _smallest("torchvision", families)


def _of_timm() -> list[Network]:
    """The smallest of each family; timm's own test networks are none, and those with a head come first."""
    import timm
    import torch

    families = defaultdict(list)
    for name in timm.list_models():
        if name.startswith("test_"):
            continue
        size = sys.maxsize
        # Some compute with values while they are built; they come last.
        with torch.device("meta"), contextlib.suppress(Exception):
            size = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
        has_head = bool(timm.get_pretrained_cfg(name).num_classes)
        families[timm.models.model_entrypoint(name).__module__].append((not has_head, size, name))
    return _smallest("timm", families)


def _smallest(library: str, families: dict[str, list[tuple[Any, ...]]]) -> list[Network]:
    """Of each family, the small ones first; a network is a tuple that sorts by its size and ends in its name."""
    smallest = sorted((min(family), module) for module, family in families.items())
    return [Network(f"{library}:{network[-1]}", module) for network, module in smallest]


def _of_transformers() -> list[Network]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    pairs = [(kind, name) for kind, names in KNOWN.items() for name in ([names] if isinstance(names, str) else names)]
    return [Network(f"hf:{name}", kind) for kind, name in pairs]


def default_classes(name: str) -> int:
    """Classes of a network of timm; 0 if it comes without a head."""
    import timm

    return timm.get_pretrained_cfg(name).num_classes or 0


def save_classifier(name: str, folder: Path) -> None:
    """Save a small network of transformers with random weights, as its users do, with a description of its input."""
    import torch
    import transformers
    from torch import nn

    from edgeport_export.source.untrained import settle

    kind = next(network.family for network in _of_transformers() if network.reference == f"hf:{name}")
    options = _SMALL.get(name, _SMALL.get(kind, {}))
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**{"num_labels": 10, **options})
    module = getattr(transformers, name)(config).eval()

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.module(x_BCHW).logits
            return result

    with contextlib.suppress(Exception):  # of one that does not take images; the export says so
        settle(Logits(), 10, (3, _IMAGE_SIZE, _IMAGE_SIZE), seed=0)
    module.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}).save_pretrained(folder)
