"""The Inception module in both forms: shapes, definition, and what the 1x1 reductions save."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeport_models import ARCHITECTURES
from edgeport_models.inception import GOOGLENET_MODULES, Inception, InceptionNaive

MODULE_3A = GOOGLENET_MODULES["3a"]


def multiplies(module: nn.Module, x_BCHW: Tensor) -> int:
    """Multiplications of all convolutions for one image, from the shapes that occur."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], out_BCHW: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight[0].numel() * out_BCHW[0].numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    module(x_BCHW)
    return total


def test_reductions_save_multiplies() -> None:
    """Module 3a, 28x28x192. By hand: 784 places times the weights; Table 1 says 128M for the reduced form."""
    x_BCHW = torch.empty(1, 192, 28, 28, device="meta")
    with torch.device("meta"):
        naive = multiplies(InceptionNaive(192, MODULE_3A), x_BCHW)
        reduced = multiplies(Inception(192, MODULE_3A), x_BCHW)
    # 1x1 to 64, 3x3 to 128, 5x5 to 32
    assert naive == 784 * (192 * 64 + 192 * 128 * 9 + 192 * 32 * 25) == 303_464_448
    # 1x1 to 64; 1x1 to 96, 3x3 to 128; 1x1 to 16, 5x5 to 32; 1x1 to 32 after the pooling
    weights = 192 * 64 + 192 * 96 + 96 * 128 * 9 + 192 * 16 + 16 * 32 * 25 + 192 * 32
    assert reduced == 784 * weights == 128_049_152
    assert naive / reduced == pytest.approx(2.37, abs=0.005)


def test_pooling_branch_of_the_naive_form_passes_its_input_on() -> None:
    """That is why widths grow from module to module (Section 4), which the projection of the reduced form ends."""
    x_BCHW = torch.randn(2, 192, 28, 28)
    naive, reduced = InceptionNaive(192, MODULE_3A), Inception(192, MODULE_3A)
    with torch.no_grad():
        assert naive(x_BCHW).shape == (2, naive.out_channels, 28, 28) == (2, 64 + 128 + 32 + 192, 28, 28)
        assert reduced(x_BCHW).shape == (2, reduced.out_channels, 28, 28) == (2, 256, 28, 28)
        torch.testing.assert_close(naive(x_BCHW)[:, -192:], nn.functional.max_pool2d(x_BCHW, 3, 1, 1))


def test_reduced_form_follows_the_definition() -> None:
    torch.manual_seed(0)
    module = Inception(192, MODULE_3A).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    state, x_BCHW = module.state_dict(), torch.randn(2, 192, 9, 9, dtype=torch.float64)

    def layer(key: str, x: Tensor) -> Tensor:
        weight = state[f"{key}.weight"]
        return torch.relu(nn.functional.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[-1] // 2))

    expected = [
        layer("one.0", x_BCHW),
        layer("three.1.0", layer("three.0.0", x_BCHW)),
        layer("five.1.0", layer("five.0.0", x_BCHW)),
        layer("pool.1.0", nn.functional.max_pool2d(x_BCHW, 3, 1, 1)),
    ]
    assert [branch.shape[1] for branch in expected] == [64, 128, 32, 32]
    assert state["five.1.0.weight"].shape == (32, 16, 5, 5)
    torch.testing.assert_close(module(x_BCHW), torch.cat(expected, dim=1))


@pytest.mark.parametrize(("name", "form"), [("inception_naive", InceptionNaive), ("inception_reduced", Inception)])
def test_zoo_has_each_form_by_itself(name: str, form: type[nn.Module]) -> None:
    module = ARCHITECTURES[name].build()
    assert [type(child) for child in module.children()] == [form, nn.AdaptiveAvgPool2d, nn.Linear]
