"""What timm, torchvision and transformers make of images, before it is scaled: their descriptions, and their pixels.

    python preprocessing_reference.py FOLDER IMAGE ...

Runs with Pillow 12, whose order of the two passes networks were trained with. Writes for each case NAME.json, the
description that EdgePort reads, and NAME.npy, uint8 (B, H, W, C); of transformers, whose classes compute with Pillow or
with torchvision, NAME.fast.npy of the latter as well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tvshim import torchvision  # isort: skip - what the others import torchvision after

import numpy as np
import timm
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config

from edgeport_export.source.libraries import find_network

TIMM = {
    "bicubic": "mobilenetv3_small_100.lamb_in1k",
    "bilinear": "resnet50.tv_in1k",
    "most": "resnetv2_50.a1h_in1k",
    "all": "mobilevit_xxs.cvnets_in1k",
    "squash": "dm_nfnet_f0.dm_in1k",
    "border": "deepseek_vit_412m.deepseek_v4_1_flash",
    "padded": "volo_d4_448.sail_in1k",
}
TORCHVISION = {"bilinear": "alexnet", "bicubic": "efficientnet_b0.IMAGENET1K_V1", "close": "convnext_tiny"}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {}),
    "deit": ("DeiT", {}),
    "bit": ("Bit", {"size": {"shortest_edge": 251}}),
    "clip": ("CLIP", {}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
    "convnext_384": ("ConvNext", {}),
    "efficientnet": ("EfficientNet", {"do_center_crop": True}),
    "levit": ("Levit", {}),
    "mobilenet": ("MobileNetV2", {}),
    "mobilevit": ("MobileViT", {"size": {"shortest_edge": 288}}),
    "poolformer": ("PoolFormer", {"crop_pct": 0.95}),
    "siglip": ("Siglip", {"resample": 1}),
}
_NEITHER = {"do_rescale": False, "do_normalize": False}


def main(folder: Path, paths: list[str]) -> None:
    images = [Image.open(path).convert("RGB") for path in paths]
    for case, name in TIMM.items():
        config = timm.get_pretrained_cfg(name)
        transform = create_transform(**resolve_data_config({}, pretrained_cfg=config.to_dict()))
        _save(
            folder / f"timm_{case}", _described(f"timm:{name}"), [_until_tensor(transform, image) for image in images]
        )
    for case, name in TORCHVISION.items():
        weights = torchvision.models.get_model_weights(name.partition(".")[0])
        transform = (weights[name.partition(".")[2]] if "." in name else weights.DEFAULT).transforms()
        transform.mean, transform.std = [0.0] * 3, [1.0] * 3
        pixels = [(transform(image) * 255).round().byte().permute(1, 2, 0).numpy() for image in images]
        _save(folder / f"torchvision_{case}", _described(f"torchvision:{name}"), pixels)
    for case, (family, options) in TRANSFORMERS.items():
        by_pillow = getattr(transformers, f"{family}ImageProcessorPil")(**options)
        by_torchvision = getattr(transformers, f"{family}ImageProcessor")(**options)
        document = json.loads(by_pillow.to_json_string())
        _save(folder / f"transformers_{case}", document, _processed(by_pillow, images))
        np.save(folder / f"transformers_{case}.fast.npy", np.stack(_processed(by_torchvision, images)))


def _described(reference: str) -> dict[str, Any] | str:
    """The fields that EdgePort reads, or why it refuses them."""
    from edgeport_runtime.errors import WeightsError

    try:
        return find_network(reference).describe(set())
    except WeightsError as error:
        return str(error)


def _until_tensor(transform: Any, image: Any) -> Any:
    for step in transform.transforms:
        after = step(image)
        if not isinstance(after, Image.Image):
            break
        image = after
    return np.asarray(image)


def _processed(processor: Any, images: list[Any]) -> list[Any]:
    options = {**_NEITHER, **({"include_top": False} if hasattr(processor, "include_top") else {})}
    values = [processor(images=image, return_tensors="np", **options)["pixel_values"][0] for image in images]
    return [np.asarray(value).transpose(1, 2, 0).round().astype(np.uint8) for value in values]


def _save(path: Path, document: object, pixels: list[Any]) -> None:
    path.with_suffix(".json").write_text(json.dumps(document))
    np.save(path.with_suffix(".npy"), np.stack(pixels))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
