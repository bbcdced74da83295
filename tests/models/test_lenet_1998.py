"""LeNet-5 as printed, against the figures of its paper and against its definition written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeport_models import ARCHITECTURES
from edgeport_models.weights import num_classes_of

SPEC = ARCHITECTURES["lenet5_1998"]

# LeCun et al. 1998, Table I, as printed: one row per map of S2, one column per map of C3.
TABLE_1 = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)


def squash(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(x * 2 / 3)


def subsample(x_BCHW: Tensor, coefficient: Tensor, bias: Tensor) -> Tensor:
    x = x_BCHW[..., ::2, ::2] + x_BCHW[..., ::2, 1::2] + x_BCHW[..., 1::2, ::2] + x_BCHW[..., 1::2, 1::2]
    return squash(x * coefficient + bias)


def written_out(state: dict[str, Tensor], image_BCHW: Tensor) -> Tensor:
    """LeCun et al. 1998, Section II.B, map by map."""
    x = squash(nn.functional.conv2d(image_BCHW, state["c1.weight"], state["c1.bias"]))
    x = subsample(x, state["s2.coefficient"], state["s2.bias"])
    kernels = iter(state["c3.weight"])
    maps = []
    for i in range(16):
        total = state["c3.bias"][i].expand(len(x), 10, 10)
        for j in range(6):
            if TABLE_1[j][i] == "X":
                total = total + nn.functional.conv2d(x[:, j : j + 1], next(kernels)[None, None])[:, 0]
        maps.append(squash(total))
    x = subsample(torch.stack(maps, dim=1), state["s4.coefficient"], state["s4.bias"])
    x = squash(x.flatten(1) @ state["c5.weight"].flatten(1).T + state["c5.bias"])
    x = squash(x @ state["f6.weight"].T + state["f6.bias"])
    return torch.stack([-((x - code) ** 2).sum(dim=1) for code in state["output.weight"]], dim=1)


def test_logits_follow_the_definition() -> None:
    torch.manual_seed(0)
    module = SPEC.build().double().eval()
    for parameter in module.parameters():  # biases start at 0, and a bias that is not added would not show
        nn.init.normal_(parameter, std=0.3)
    image_BCHW = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(image_BCHW), written_out(module.state_dict(), image_BCHW))


def test_parameters_of_each_layer_are_those_of_the_paper() -> None:
    module = SPEC.build()
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in module.named_children()}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert sum(counts.values()) == 60_000


def test_feature_maps_have_the_sizes_of_the_paper() -> None:
    module = SPEC.build()
    shapes: list[tuple[int, ...]] = []
    for layer in module.children():
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    module(torch.zeros(1, 1, 32, 32))
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,)]


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_codes_are_fixed_signs_that_differ(num_classes: int) -> None:
    codes_KU = SPEC.build(num_classes=num_classes).state_dict()["output.weight"]
    assert codes_KU.shape == (num_classes, 84)
    assert set(codes_KU.unique().tolist()) == {-1.0, 1.0}
    assert len(codes_KU.unique(dim=0)) == num_classes
    assert torch.equal(codes_KU, SPEC.build(num_classes=num_classes).state_dict()["output.weight"])


def test_units_that_equal_a_code_have_that_class() -> None:
    output = SPEC.build().get_submodule("output")
    codes_KU = output.state_dict()["weight"]
    logits_KK = output(codes_KU)
    assert logits_KK.diagonal().tolist() == [0.0] * 10
    assert logits_KK.argmax(dim=1).tolist() == list(range(10))
    assert logits_KK[0, 1] == -4 * (codes_KU[0] != codes_KU[1]).sum()


def test_training_reaches_every_parameter_and_leaves_the_codes() -> None:
    torch.manual_seed(0)
    module = SPEC.build()
    codes_KU = module.state_dict()["output.weight"].clone()
    nn.functional.cross_entropy(module(torch.randn(4, 1, 32, 32)), torch.arange(4)).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.flatten(1).any(dim=1).all() if parameter.ndim > 1 else parameter.grad.any(), name
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert torch.equal(module.state_dict()["output.weight"], codes_KU)


def test_number_of_classes_is_found_in_a_checkpoint() -> None:
    assert num_classes_of(SPEC.build(num_classes=26).state_dict(), SPEC) == 26


def test_paper_normalizes_to_mean_0_and_background_below() -> None:
    (mean,), (std,) = SPEC.preprocess.mean, SPEC.preprocess.std
    assert (0 - mean) / std == pytest.approx(-0.1)
    assert (1 - mean) / std == pytest.approx(1.175)
