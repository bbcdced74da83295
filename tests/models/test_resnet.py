"""Residual networks: depth, option-A shortcuts, and the trained CIFAR-10 checkpoints.

The ImageNet family's numbers and layout are compared with torchvision in ``tests/e2e``.
Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgeport_models import ARCHITECTURES
from edgeport_models.weights import fit_checkpoint, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRAINED = {"resnet20": "weights/resnet20-12fca82f.th", "resnet56": "weights/resnet56-4bfd9763.th"}

DEPTHS = {name: int(name[-3:].lstrip("tnai")) for name in ARCHITECTURES if re.fullmatch(r"(resnet|plain)\d+", name)}


@pytest.mark.parametrize(("name", "depth"), DEPTHS.items())
def test_depth_is_the_number_in_the_name(name: str, depth: int) -> None:
    """Convolutions and linear layers, shortcut projections left out (He et al. 2015, Table 1 and Section 4.2)."""
    with torch.device("meta"):
        module = ARCHITECTURES[name].build()
    layers = [key for key, child in module.named_modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    assert len([key for key in layers if "downsample" not in key]) == depth


@pytest.mark.parametrize(
    ("name", "num_params"),
    [("resnet20", 0.27e6), ("resnet32", 0.46e6), ("resnet44", 0.66e6), ("resnet56", 0.85e6), ("resnet110", 1.7e6)],
)
def test_cifar_parameters_are_those_of_the_paper(name: str, num_params: float) -> None:
    """He et al. 2015, Table 6, in two digits."""
    assert float(f"{ARCHITECTURES[name].num_params:.2g}") == num_params


@pytest.mark.parametrize(
    ("plain", "residual"),
    [("plain18", "resnet18"), ("plain34", "resnet34"), ("plain20", "resnet20"), ("plain56", "resnet56")],
)
def test_plain_network_is_the_residual_one_without_shortcuts(plain: str, residual: str) -> None:
    with torch.device("meta"):
        own = {key: value.shape for key, value in ARCHITECTURES[plain].build().state_dict().items()}
        other = ARCHITECTURES[residual].build().state_dict()
    assert own == {key: value.shape for key, value in other.items() if "downsample" not in key}


def test_plain_block_adds_nothing() -> None:
    """With its last norm at zero, a residual block gives its input and a plain one gives zero."""
    x_BCHW = torch.rand(2, 16, 8, 8)
    for name, expected in (("resnet20", x_BCHW), ("plain20", torch.zeros_like(x_BCHW))):
        block = ARCHITECTURES[name].build().eval().layer1[1]
        nn.init.zeros_(block.bn2.weight)
        with torch.no_grad():
            torch.testing.assert_close(block(x_BCHW), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_cifar_checkpoint_loads_strictly(name: str, shared: Callable[[str], Path]) -> None:
    raw = torch.load(shared(TRAINED[name]), map_location="cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in raw.items()}
    module = ARCHITECTURES[name].build()
    # Written by PyTorch 0.4 or older, which did not count batches.
    own = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in state.items()}
    counters = {key: value for key, value in module.state_dict().items() if key not in own}
    module.load_state_dict(state | counters, strict=True)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_cifar_checkpoint_classifies(name: str, shared: Callable[[str], Path]) -> None:
    spec = ARCHITECTURES[name]
    module = spec.build().eval()
    fit_checkpoint(module, load_checkpoint(shared(TRAINED[name])), spec=spec, source="trained")
    folders = sorted(path for path in shared("data/cifar10/test").iterdir() if path.is_dir())
    files = [(file, index) for index, folder in enumerate(folders) for file in sorted(folder.iterdir())[:10]]
    pixels_BHWC = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])
    mean, std = torch.tensor(spec.preprocess.mean), torch.tensor(spec.preprocess.std)
    x_BHWC = (torch.from_numpy(pixels_BHWC) / 255 - mean) / std
    with torch.no_grad():
        predicted_B = module(x_BHWC.permute(0, 3, 1, 2)).argmax(dim=1)
    accuracy = (predicted_B == torch.tensor([index for _, index in files])).float().mean().item()
    assert accuracy >= 0.9  # measured: 0.93 (resnet20) and 0.95 (resnet56)


@pytest.mark.parametrize(("layer", "in_channels", "out_channels"), [("layer2", 16, 32), ("layer3", 32, 64)])
def test_option_a_shortcut(layer: str, in_channels: int, out_channels: int) -> None:
    """Every second pixel, and as many zero channels before the old ones as after (He et al. 2015, Section 4.1)."""
    block = ARCHITECTURES["resnet20"].build().get_submodule(layer)[0].eval()
    nn.init.zeros_(block.bn2.weight)  # closes the residual branch, so that the block is ReLU of its shortcut
    x_BCHW = torch.randn(2, in_channels, 8, 8)
    expected = torch.zeros(2, out_channels, 4, 4)
    first = (out_channels - in_channels) // 2
    for channel in range(in_channels):
        for row in range(4):
            for column in range(4):
                expected[:, first + channel, row, column] = x_BCHW[:, channel, 2 * row, 2 * column]
    with torch.no_grad():
        torch.testing.assert_close(block(x_BCHW.clone()), expected.relu(), rtol=0, atol=0)


def test_option_a_shortcut_has_no_parameters() -> None:
    with torch.device("meta"):
        keys = ARCHITECTURES["resnet20"].build().state_dict().keys()
    assert not [key for key in keys if "downsample" in key]


def written_out(state: dict[str, torch.Tensor], x_BCHW: torch.Tensor, *, num_blocks: int) -> torch.Tensor:
    """He et al. 2015, Section 4.2, from a state dict in evaluation mode."""

    def convolve(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        norm = name.replace("conv", "bn")
        x = nn.functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)
        mean, var, weight, bias = (
            state[f"{norm}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    x = convolve("conv1", x_BCHW).relu()
    for stage in (1, 2, 3):
        for index in range(num_blocks):
            name = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            out = convolve(f"{name}.conv2", convolve(f"{name}.conv1", x, stride).relu())
            if stride == 2:
                empty = torch.zeros_like(out[:, : out.shape[1] // 4])
                x = torch.cat([empty, x[:, :, ::2, ::2], empty], dim=1)
            x = (out + x).relu()
    return x.mean(dim=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]


def test_cifar_logits_follow_the_definition(shared: Callable[[str], Path]) -> None:
    module = ARCHITECTURES["resnet20"].build()
    fit_checkpoint(
        module, load_checkpoint(shared(TRAINED["resnet20"])), spec=ARCHITECTURES["resnet20"], source="trained"
    )
    module.double().eval()
    x_BCHW = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(module(x_BCHW), written_out(module.state_dict(), x_BCHW, num_blocks=3))


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_weights_do_not_depend_on_the_image_size(name: str) -> None:
    spec = ARCHITECTURES[name]
    shapes = [{key: value.shape for key, value in spec.build(image_size=n).state_dict().items()} for n in (None, 64)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 32), ("resnet50", 32), ("resnet20", 4), ("resnet56", 4)])
def test_total_stride_is_the_smallest_image_size(name: str, stride: int) -> None:
    message = f"image size {stride - 1} is too small for this network; use {stride} or more"
    with pytest.raises(ValueError, match=message):
        ARCHITECTURES[name].build(image_size=stride - 1)
