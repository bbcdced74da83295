"""What timm writes and computes, in a process of its own.

python timm_reference.py FOLDER, with timm and torchvision on PYTHONPATH. Written are ViT-Ti/16 (``vit.pth``,
and the same with the wrappers of a training script in ``vit_training.pth``), a folder as timm pushes it to the hub
(``vit_hub``), the weights of google-research's layout (``vit_google.npz``), ResNets (``resnet18.pth``,
``resnet50.safetensors``), and for each an input with its logits: also of the ViT at 160 pixels, and with one channel.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import tvshim  # noqa: F401 - before timm, which imports torchvision

import timm  # isort: skip
from reference_nets import colour_blocks, randomize, save_logits
from timm.models._hub import save_for_hf
from timm.models._manipulate import adapt_input_conv
from timm.models.vision_transformer import checkpoint_filter_fn

VIT = "vit_tiny_patch16_224"


def google_arrays() -> dict[str, np.ndarray]:
    """Random parameters under the names and in the shapes of google-research/vision_transformer, for ViT-Ti/16."""
    rng = np.random.default_rng(0)
    width, heads, hidden, classes = 192, 3, 768, 5

    def values(*shape: int, std: float) -> np.ndarray:
        return (std * rng.standard_normal(shape)).astype(np.float32)

    arrays = {
        "embedding/kernel": values(16, 16, 3, width, std=768**-0.5),
        "embedding/bias": values(width, std=0.1),
        "cls": values(1, 1, width, std=0.2),
        "Transformer/posembed_input/pos_embedding": values(1, 197, width, std=0.2),
        "Transformer/encoder_norm/scale": 1 + values(width, std=0.1),
        "Transformer/encoder_norm/bias": values(width, std=0.1),
        "head/kernel": values(width, classes, std=width**-0.5),
        "head/bias": values(classes, std=0.1),
    }
    for i in range(12):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays[f"{block}/{norm}/scale"] = 1 + values(width, std=0.1)
            arrays[f"{block}/{norm}/bias"] = values(width, std=0.1)
        for part in ("query", "key", "value"):
            arrays[f"{attention}/{part}/kernel"] = values(width, heads, width // heads, std=width**-0.5)
            arrays[f"{attention}/{part}/bias"] = values(heads, width // heads, std=0.1)
        arrays[f"{attention}/out/kernel"] = values(heads, width // heads, width, std=width**-0.5)
        arrays[f"{attention}/out/bias"] = values(width, std=0.1)
        arrays[f"{block}/MlpBlock_3/Dense_0/kernel"] = values(width, hidden, std=width**-0.5)
        arrays[f"{block}/MlpBlock_3/Dense_0/bias"] = values(hidden, std=0.1)
        arrays[f"{block}/MlpBlock_3/Dense_1/kernel"] = values(hidden, width, std=hidden**-0.5)
        arrays[f"{block}/MlpBlock_3/Dense_1/bias"] = values(width, std=0.1)
    return arrays


def write_vit(folder: Path) -> None:
    vit = timm.create_model(VIT, num_classes=5)
    randomize(vit, vit.head, vit, 224)
    torch.save(vit.state_dict(), folder / "vit.pth")
    save_logits(folder / "vit.npz", vit, 224)
    parallel = {f"module.{key}": value for key, value in vit.state_dict().items()}
    other = {key: torch.zeros_like(value) for key, value in parallel.items()}
    training = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": other, "state_dict_ema": parallel}
    torch.save(training, folder / "vit_training.pth")
    save_for_hf(vit, folder / "vit_hub", safe_serialization=True, model_config={"label_names": list("abcde")})
    at_160 = timm.create_model(VIT, num_classes=5, img_size=160).eval()
    at_160.load_state_dict(checkpoint_filter_fn(vit.state_dict(), at_160))
    save_logits(folder / "vit_160.npz", at_160, 160)
    grey = timm.create_model(VIT, num_classes=5, in_chans=1).eval()
    state = vit.state_dict()
    state["patch_embed.proj.weight"] = adapt_input_conv(1, state["patch_embed.proj.weight"])
    grey.load_state_dict(state)
    x_BCHW = colour_blocks(4, 224)[:, :1]
    with torch.no_grad():
        np.savez(folder / "vit_grey.npz", input=x_BCHW.numpy(), logits=grey(x_BCHW).numpy())
    np.savez(folder / "vit_google_weights.npz", **google_arrays())
    google = timm.create_model(VIT, num_classes=5)
    google.load_pretrained(str(folder / "vit_google_weights.npz"))
    save_logits(folder / "vit_google.npz", google.eval(), 224)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    write_vit(folder)
    for name in ("resnet18", "resnet50"):
        net = timm.create_model(name, num_classes=5)
        randomize(net, net.fc, net, 224)
        if name == "resnet18":
            torch.save(net.state_dict(), folder / f"{name}.pth")
        else:
            safetensors.torch.save_file(net.state_dict(), folder / f"{name}.safetensors")
        save_logits(folder / f"{name}.npz", net, 224)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
