"""What Hugging Face transformers writes and computes, in a process of its own.

python transformers_reference.py FOLDER, with transformers on PYTHONPATH. Written are folders as ``save_pretrained``
writes them (``vit``, ``vit_sharded``, ``resnet18``, ``resnet50``) with their image processors, the ViT's state dict as
transformers 5 has it in memory (``vit_memory``) and as transformers 4 saved it (``vit_bin``), an input with its logits
for each network (``<name>.npz``), and a photo with its preprocessed values (``photo.npz``).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from reference_nets import randomize, save_logits
from transformers import (
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

LABELS = ["cat", "dog", "owl", "fox", "bee"]
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


def main(folder: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=192, num_attention_heads=3, num_hidden_layers=12, intermediate_size=768, **NAMES)
    vit = ViTForImageClassification(config)
    randomize(vit, vit.classifier, lambda x: vit(x).logits, 224)
    vit.save_pretrained(folder / "vit")
    ViTImageProcessor(resample=3).save_pretrained(folder / "vit")
    vit.save_pretrained(folder / "vit_sharded", max_shard_size="5MB")
    for name, state in (
        ("vit_memory", vit.state_dict()),
        ("vit_bin", safetensors.torch.load_file(folder / "vit" / "model.safetensors")),
    ):
        (folder / name).mkdir()
        torch.save(state, folder / name / "pytorch_model.bin")
        shutil.copy(folder / "vit" / "config.json", folder / name)
    save_logits(folder / "vit.npz", lambda x: vit(x).logits, 224)
    basic = ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], num_labels=5)
    for name, config in (("resnet18", basic), ("resnet50", ResNetConfig(num_labels=5))):
        net = ResNetForImageClassification(config)
        randomize(net, net.classifier[1], lambda x, net=net: net(x).logits, 224)
        net.save_pretrained(folder / name)
        save_logits(folder / f"{name}.npz", lambda x, net=net: net(x).logits, 224)
    processor = ConvNextImageProcessor(size={"shortest_edge": 224})
    processor.save_pretrained(folder / "resnet50")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).resize((400, 300))
    photo.save(folder / "photo.png")
    values = {
        "vit": ViTImageProcessor.from_pretrained(folder / "vit")(photo, return_tensors="np")["pixel_values"],
        "resnet50": processor(photo, return_tensors="np")["pixel_values"],
    }
    np.savez(folder / "photo.npz", **values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
