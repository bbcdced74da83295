"""What torchvision computes, in a process of its own: its compiled extension does not fit the CPU build of torch.

python torchvision_reference.py FOLDER NAME..., with torchvision on PYTHONPATH. For each architecture, FOLDER holds
EdgePort's state dict in ``<name>.edgeport.pth``, which torchvision's network must load strictly. Written beside it are
torchvision's own weights (``<name>.pth`` or ``<name>.safetensors``), and an input with its logits (``<name>.npz``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import tvshim
from torch import nn

models = tvshim.torchvision.models

SUFFIXES = {
    "resnet18": ".pth",
    "resnet50": ".safetensors",
    "vit_b_16": ".safetensors",
    "alexnet": ".pth",
    "vgg11_bn": ".safetensors",
    "googlenet": ".pth",
}


def randomize_norms(model: nn.Module, x_BCHW: torch.Tensor) -> None:
    """Random statistics and affine weights in every norm, near those of the input so that rounding is not amplified."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    last_in_block = {
        f"{name}.{'bn3' if hasattr(block, 'bn3') else 'bn2'}"
        for name, block in model.named_modules()
        if hasattr(block, "downsample")
    }
    for name, norm in norms.items():
        low, high = (0.2, 0.3) if name in last_in_block else (0.7, 1.3)
        nn.init.uniform_(norm.weight, low, high)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None
    model.train()
    model(x_BCHW)
    for norm in norms.values():
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    model.eval()


def calm_convolutions(model: nn.Module) -> None:
    """The identity and some noise: 22 layers of noise alone amplify float32's rounding beyond 1e-5 of the logits."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.weight *= 0.25
            module.weight += nn.init.dirac_(torch.empty_like(module.weight))


def randomize_head(model: nn.Module, x_BCHW: torch.Tensor) -> None:
    """Logits of order 1, most of what the images share gone, so that top-1 is not the same for all of them."""
    head = [module for name, module in model.named_modules() if isinstance(module, nn.Linear) and "aux" not in name][-1]
    logits_BK = model.eval()(x_BCHW)
    head.weight /= logits_BK.std(dim=0).mean()
    head.bias.zero_()
    head.bias -= 0.7 * model(x_BCHW).mean(dim=0)


def randomize_vit(model: nn.Module) -> None:
    """Random values where torchvision starts with constants; its head of zeros would make any comparison pass."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.MultiheadAttention):
            nn.init.normal_(module.in_proj_bias, std=0.1)
            nn.init.normal_(module.out_proj.bias, std=0.1)
    nn.init.normal_(model.class_token, std=0.02)
    nn.init.normal_(model.conv_proj.bias, std=0.1)
    nn.init.normal_(model.heads.head.weight, std=0.04)
    nn.init.normal_(model.heads.head.bias, std=0.1)


def colour_blocks(num_images: int) -> torch.Tensor:
    """Images that differ in more than noise, which pooling would average away."""
    blocks_BCHW = nn.functional.interpolate(torch.randn(num_images, 3, 4, 4), size=(224, 224))
    return blocks_BCHW + torch.randn(num_images, 3, 224, 224)


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        suffix = SUFFIXES[name]
        torch.manual_seed(0)
        options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        model = getattr(models, name)(weights=None, **options)
        own = {key: value.clone() for key, value in model.state_dict().items()}
        ours = torch.load(folder / f"{name}.edgeport.pth", weights_only=True)
        auxiliary = {key: value for key, value in own.items() if key.startswith(("aux1.", "aux2."))}
        model.load_state_dict(ours | auxiliary, strict=True)
        model.load_state_dict(own)
        with torch.no_grad():
            if name == "vit_b_16":
                randomize_vit(model)
            else:
                if name == "googlenet":
                    calm_convolutions(model)
                randomize_norms(model, colour_blocks(8))
                randomize_head(model, colour_blocks(8))
            x_BCHW = colour_blocks(4)
            logits_BK = model.eval()(x_BCHW)
        if suffix == ".pth":
            torch.save(model.state_dict(), folder / f"{name}{suffix}")
        else:
            safetensors.torch.save_file(model.state_dict(), folder / f"{name}{suffix}")
        np.savez(folder / f"{name}.npz", input=x_BCHW.numpy(), logits=logits_BK.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
