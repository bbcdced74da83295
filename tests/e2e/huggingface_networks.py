"""Folders as transformers writes them, and what EdgePort tells of those that it cannot take.

    python huggingface_networks.py FOLDER

Written are ``vit`` (in shards, with labels and a description of its input), its logits of an input, those of a copy in
float16 by EdgePort and by transformers, and ``refusals.json``, the error of each altered copy.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from edgeport_export import ExportConfig
from edgeport_export.source.subject import find_subject
from edgeport_runtime.errors import EdgeportError

LABELS = ["cat", "dog", "bird", "fish"]
ALTERED: dict[str, dict[str, Any]] = {
    "an encoder": {"architectures": ["ViTModel"]},
    "of another type": {"model_type": "nonsense"},
    "of nothing": {"architectures": None},
    "without a description": {},
    "of colours": {"model_type": "imagegpt", "architectures": ["ImageGPTForImageClassification"]},
    "of another size": {"hidden_size": 48},
    "of more layers": {"num_hidden_layers": 3},
    "of another task": {"problem_type": "regression"},
}


def main(folder: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        problem_type="multi_label_classification",
        initializer_range=0.5,
    )
    module = transformers.ViTForImageClassification(config).eval()
    module.save_pretrained(folder / "vit", max_shard_size="40KB")
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size=32, resample=2)
    processor.save_pretrained(folder / "vit")
    x_BCHW = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.save((x_BCHW, module(x_BCHW).logits), folder / "logits.pth")
    _save_half(module, folder)
    refusals = {}
    for name, changes in ALTERED.items():
        copy = folder / name
        shutil.copytree(folder / "vit", copy)
        document = json.loads((copy / "config.json").read_text()) | changes
        (copy / "config.json").write_text(json.dumps(document))
        if not changes:
            (copy / "config.json").unlink()
        try:
            find_subject(ExportConfig(architecture=f"hf:{copy}", output=folder / "unused"))
        except EdgeportError as error:
            refusals[name] = str(error)
    (folder / "refusals.json").write_text(json.dumps(refusals))


def _save_half(module: Any, folder: Path) -> None:
    """A folder of float16 weights under the keys that the module has in memory, and EdgePort's logits of the input."""
    half = folder / "half"
    shutil.copytree(folder / "vit", half, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.save(module.half().state_dict(), half / "pytorch_model.bin")
    found = find_subject(ExportConfig(architecture=f"hf:{half}", output=folder / "unused")).module
    x_BCHW, _ = torch.load(folder / "logits.pth")
    with torch.no_grad():
        torch.save((found(x_BCHW), module.float()(x_BCHW).logits), folder / "half.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
