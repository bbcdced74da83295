"""GoogLeNet as printed: its blocks against Table 1, and its auxiliary heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeport_models import ARCHITECTURES
from edgeport_models.inception import Inception
from edgeport_models.weights import fit_checkpoint
from edgeport_runtime.errors import WeightsError

SPEC = ARCHITECTURES["googlenet_2014"]

# Weights without biases, by hand from the widths of Table 1, and the table's own column "params" (thousands of 1024).
# The column agrees with the widths for these blocks; for conv1 (2.7K) and modules 4a, 4c, 4d, 5a and 5b it does not.
BLOCKS = {
    "conv1": (7 * 7 * 3 * 64, None),
    "conv2": (64 * 64 + 9 * 64 * 192, 112),
    "inception3a": (192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32, 159),
    "inception3b": (256 * (128 + 128 + 32 + 64) + 9 * 128 * 192 + 25 * 32 * 96, 380),
    "inception4a": (480 * (192 + 96 + 16 + 64) + 9 * 96 * 208 + 25 * 16 * 48, None),
    "inception4b": (512 * (160 + 112 + 24 + 64) + 9 * 112 * 224 + 25 * 24 * 64, 437),
    "inception4c": (512 * (128 + 128 + 24 + 64) + 9 * 128 * 256 + 25 * 24 * 64, None),
    "inception4d": (512 * (112 + 144 + 32 + 64) + 9 * 144 * 288 + 25 * 32 * 64, None),
    "inception4e": (528 * (256 + 160 + 32 + 128) + 9 * 160 * 320 + 25 * 32 * 128, 840),
    "inception5a": (832 * (256 + 160 + 32 + 128) + 9 * 160 * 320 + 25 * 32 * 128, None),
    "inception5b": (832 * (384 + 192 + 48 + 128) + 9 * 192 * 384 + 25 * 48 * 128, None),
    "fc": (1024 * 1000, 1000),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_parameters_of_each_block(name: str) -> None:
    by_hand, thousands = BLOCKS[name]
    with torch.device("meta"):
        block = SPEC.build().get_submodule(name)
    weights = sum(parameter.numel() for parameter in block.parameters() if parameter.ndim > 1)
    assert weights == by_hand
    if thousands is not None:
        assert weights / 1024 == pytest.approx(thousands, rel=0.01)
    assert all(layer.bias is not None for layer in block.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_maps_have_the_sizes_of_the_table() -> None:
    sizes = {}
    with torch.device("meta"):
        module = SPEC.build()
        for name, child in module.named_children():
            if name.startswith(("conv", "inception")):
                child.register_forward_hook(lambda _m, _i, out, name=name: sizes.update({name: tuple(out.shape[1:])}))
        module(torch.empty(1, 3, 224, 224))
    assert sizes == {
        "conv1": (64, 112, 112),
        "conv2": (192, 56, 56),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
    }


def test_layers_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        kinds = [type(child) for child in SPEC.build().modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(nn.LocalResponseNorm) == 2
    assert kinds.count(Inception) == 9


def test_auxiliary_heads_answer_in_training_alone() -> None:
    torch.manual_seed(0)
    module = SPEC.build(num_classes=5, image_size=96, auxiliary=True)
    x_BCHW = torch.randn(2, 3, 96, 96)
    logits, aux1, aux2 = module.train()(x_BCHW)
    loss = sum(
        weight * nn.functional.cross_entropy(out, torch.tensor([0, 1]))
        for weight, out in ((1, logits), (0.3, aux1), (0.3, aux2))
    )
    loss.backward()
    assert aux1.shape == aux2.shape == (2, 5)
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.eval()
    without = SPEC.build(num_classes=5, image_size=96).eval()
    state = module.state_dict()
    dropped = fit_checkpoint(without, state, spec=SPEC, source="aux.pth")
    assert dropped == [key for key in state if key.startswith("aux")]
    with torch.no_grad():
        torch.testing.assert_close(without(x_BCHW), module(x_BCHW), rtol=0, atol=0)
    with pytest.raises(WeightsError, match=r"unexpected: aux3\.fc1\.weight"):
        fit_checkpoint(without, state | {"aux3.fc1.weight": torch.ones(2)}, spec=SPEC, source="aux.pth")


@pytest.mark.parametrize(("name", "in_channels"), [("aux1", 512), ("aux2", 528)])
def test_parameters_of_the_auxiliary_heads(name: str, in_channels: int) -> None:
    """Section 5: 5x5 pooling to 4x4, 128 filters 1x1, 1024 units, 1000 classes; dropout of 70%."""
    with torch.device("meta"):
        head = SPEC.build(auxiliary=True).get_submodule(name)
    by_hand = (in_channels + 1) * 128 + (4 * 4 * 128 + 1) * 1024 + (1024 + 1) * 1000
    assert sum(parameter.numel() for parameter in head.parameters()) == by_hand
    assert [layer.p for layer in head.modules() if isinstance(layer, nn.Dropout)] == [0.7]


def test_auxiliary_heads_need_a_larger_image() -> None:
    with torch.no_grad():
        out = SPEC.build(image_size=79, auxiliary=True).train()(torch.zeros(2, 3, 79, 79))
    assert [tuple(logits.shape) for logits in out] == [(2, 1000)] * 3
    with pytest.raises(ValueError, match="image size 78 is too small for this network; use 79 or more"):
        SPEC.build(image_size=78, auxiliary=True)
    assert SPEC.build(image_size=78) is not None
