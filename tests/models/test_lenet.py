"""LeNet-5, against the sizes of its paper and against its definition written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeport_models import ARCHITECTURES

SPEC = ARCHITECTURES["lenet5"]


def written_out(state: dict[str, Tensor], image_BCHW: Tensor) -> Tensor:
    """LeCun et al. 1998, Section II.B, in the common form; 32x32 images."""
    x = image_BCHW
    for layer in ("conv1", "conv2"):
        x = torch.tanh(nn.functional.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"]))
        x = (x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4
    x = x.reshape(len(x), -1)
    for layer in ("fc1", "fc2"):
        x = torch.tanh(x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
    return x @ state["fc3.weight"].T + state["fc3.bias"]


def test_logits_follow_the_definition() -> None:
    torch.manual_seed(0)
    module = SPEC.build().double().eval()
    image_BCHW = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(module(image_BCHW), written_out(module.state_dict(), image_BCHW))


def test_feature_maps_have_the_sizes_of_the_paper() -> None:
    """LeCun et al. 1998, Figure 2: C1, S2, C3, S4, C5, F6 and the output."""
    module = SPEC.build()
    shapes: list[tuple[int, ...]] = []
    for layer in (module.conv1, module.conv2, module.pool, module.fc1, module.fc2, module.fc3):
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    module(torch.zeros(1, 1, 32, 32))
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]


def test_state_dict_layout() -> None:
    assert {key: tuple(value.shape) for key, value in SPEC.build().state_dict().items()} == {
        "conv1.weight": (6, 1, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }


def test_mnist_size_shares_the_weights_of_the_padded_image() -> None:
    torch.manual_seed(0)
    padded = SPEC.build().double()
    mnist = SPEC.build(image_size=28).double()
    mnist.load_state_dict(padded.state_dict(), strict=True)
    image_BCHW = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(mnist(image_BCHW), padded(nn.functional.pad(image_BCHW, (2, 2, 2, 2))))


@pytest.mark.parametrize("image_size", [1, 5, 12, 15])
def test_too_small_an_image_is_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image size {image_size} is too small for this network; use 16 or more"):
        SPEC.build(image_size=image_size)
