"""Another image size, and one channel in the place of three."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgeport_models import ARCHITECTURES
from edgeport_models.weights.adapt import image_size_of, resize_positions, sum_channels
from edgeport_runtime.errors import InputError, WeightsError


def _vit_state(num_tokens: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "encoder.pos_embedding": torch.randn(1, num_tokens, 4),
        "conv_proj.weight": torch.randn(4, 3, 16, 16),
        "class_token": torch.zeros(1, 1, 4),
    }


def test_positions_of_another_size_keep_the_class_token_and_what_is_constant() -> None:
    state = _vit_state(26)
    state["encoder.pos_embedding"][:, 1:, 0] = 3.0
    resized, note = resize_positions(state, image_size=128, source="w.pth")
    assert note == "position embeddings interpolated from 5x5 to 8x8 patches"
    positions_1ND = resized["encoder.pos_embedding"]
    assert positions_1ND.shape == (1, 65, 4)
    assert torch.equal(positions_1ND[:, 0], state["encoder.pos_embedding"][:, 0])
    assert torch.allclose(positions_1ND[:, 1:, 0], torch.tensor(3.0), atol=1e-6)


def test_rows_and_columns_are_not_exchanged() -> None:
    state = _vit_state(26)
    rows = torch.arange(5.0).repeat_interleave(5)
    state["encoder.pos_embedding"][0, 1:, 0] = rows
    resized, _ = resize_positions(state, image_size=160, source="w.pth")
    grid = resized["encoder.pos_embedding"][0, 1:, 0].reshape(10, 10)
    assert torch.allclose(grid, grid[:, :1].expand(10, 10), atol=1e-5)
    assert (grid[1:, 0] > grid[:-1, 0]).all()


@pytest.mark.parametrize("side", [3, 10])
def test_interpolation_is_antialiased_as_pillows(side: int) -> None:
    state = _vit_state(50)
    resized, _ = resize_positions(state, image_size=16 * side, source="w.pth")
    for d in range(4):
        grid = Image.fromarray(state["encoder.pos_embedding"][0, 1:, d].reshape(7, 7).numpy())
        expected = torch.from_numpy(np.array(grid.resize((side, side), Image.Resampling.BICUBIC)))
        # Measured: 2e-7 and 1e-6; without antialiasing 1.9 and 0.27.
        torch.testing.assert_close(
            resized["encoder.pos_embedding"][0, 1:, d].reshape(side, side), expected, rtol=0, atol=1e-5
        )


def test_a_grid_that_is_not_square() -> None:
    state = _vit_state(26)
    state["encoder.pos_embedding"][0, 1:, 0] = torch.arange(5.0).repeat_interleave(5)
    state["encoder.pos_embedding"][0, 1:, 1] = torch.arange(5.0).repeat(5)
    resized, note = resize_positions(state, image_size=(48, 160), source="w.pth")
    assert note == "position embeddings interpolated from 5x5 to 3x10 patches"
    grid = resized["encoder.pos_embedding"][0, 1:].reshape(3, 10, 4)
    for d in range(2):
        image = Image.fromarray(state["encoder.pos_embedding"][0, 1:, d].reshape(5, 5).numpy())
        expected = torch.from_numpy(np.array(image.resize((10, 3), Image.Resampling.BICUBIC)))
        torch.testing.assert_close(grid[:, :, d], expected, rtol=0, atol=1e-5)  # measured: 5e-7
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()


def test_embeddings_of_the_new_grid_stay() -> None:
    state = _vit_state(33)
    assert resize_positions(state, image_size=(64, 128), source="w.pth") == (state, None)
    with pytest.raises(
        WeightsError, match="33 position embeddings are not those of a square grid and a class token, nor"
    ):
        resize_positions(state, image_size=(64, 64 + 16), source="w.pth")
    square = _vit_state(17)
    kept, note = resize_positions(square, image_size=(32, 128), source="w.pth")
    assert kept == square
    assert note == "position embeddings taken for 2x8 patches, not 4x4"


def test_same_size_and_other_networks_stay_as_they_are() -> None:
    state = _vit_state(26)
    assert resize_positions(state, image_size=80, source="w.pth") == (state, None)
    other = {"conv1.weight": torch.ones(1, 3, 3, 3)}
    assert resize_positions(other, image_size=80, source="w.pth") == (other, None)
    assert image_size_of(state) == 80
    assert image_size_of(other) is None


@pytest.mark.parametrize("num_tokens", [25, 13, 1])
def test_positions_that_are_no_square_and_a_token_are_refused(num_tokens: int) -> None:
    with pytest.raises(
        WeightsError, match=f"weights w.pth: the {num_tokens} position embeddings are not those of a sq"
    ):
        resize_positions(_vit_state(num_tokens), image_size=80, source="w.pth")


def test_channels_are_summed_on_request_only() -> None:
    module = ARCHITECTURES["resnet18"].build(in_channels=1)
    state = ARCHITECTURES["resnet18"].build().state_dict()
    summed, note = sum_channels(state, module, requested=True, source="w.pth")
    assert note == "first layer summed over its 3 input channels (conv1.weight)"
    assert torch.equal(summed["conv1.weight"][:, 0], state["conv1.weight"].sum(dim=1))
    with pytest.raises(WeightsError, match=r"conv1.weight takes 3 channels, not 1; add --sum-channels"):
        sum_channels(state, module, requested=False, source="w.pth")


def test_nothing_to_sum_is_refused() -> None:
    module = ARCHITECTURES["resnet18"].build(in_channels=1)
    with pytest.raises(InputError, match="takes 1 channels and the model takes 1, so there are not 3 to sum"):
        sum_channels(module.state_dict(), module, requested=True, source="w.pth")


def test_without_a_class_token_every_position_is_of_a_patch() -> None:
    state = _vit_state(25)
    del state["class_token"]
    state["encoder.pos_embedding"][..., 0] = 3.0
    assert image_size_of(state) == 80
    resized, _ = resize_positions(state, image_size=128, source="w.pth")
    assert resized["encoder.pos_embedding"].shape == (1, 64, 4)
    assert torch.allclose(resized["encoder.pos_embedding"][..., 0], torch.tensor(3.0), atol=1e-6)
