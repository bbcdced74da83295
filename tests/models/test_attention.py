"""Attention, against a worked example of the literature and against PyTorch's own implementation.

Shapes: B batch, A heads, N and M tokens, D width, d_k = D / A.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeport_models.attention import MultiHeadAttention, attention_weights, scaled_dot_product_attention

# Measured over 20 seeds: at most 8e-7 (attention) and 1.1e-6 (whole layer), where the values are of order 1.
TOLERANCE = 5e-6


def test_worked_example() -> None:
    """The common example for d_k = 64: scores 112 and 96 become 14 and 12, and weights 0.88 and 0.12."""
    query_1d = torch.ones(1, 64)
    keys_2d = torch.stack([torch.full((64,), 1.75), torch.full((64,), 1.5)])
    assert (query_1d @ keys_2d.T).tolist() == [[112.0, 96.0]]
    weights = attention_weights(query_1d, keys_2d)[0]
    assert [round(weight, 2) for weight in weights.tolist()] == [0.88, 0.12]
    # The log of the weights' ratio is the difference of the scaled scores, 14 - 12.
    assert torch.log(weights[0] / weights[1]).item() == pytest.approx(112 / 8 - 96 / 8, abs=1e-5)


def test_weights_of_each_query_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    query_BANd = 5 * torch.randn(2, 3, 7, 16, generator=generator)
    key_BAMd = 5 * torch.randn(2, 3, 11, 16, generator=generator)
    weights_BANM = attention_weights(query_BANd, key_BAMd)
    assert weights_BANM.shape == (2, 3, 7, 11)
    assert (weights_BANM >= 0).all()
    torch.testing.assert_close(weights_BANM.sum(dim=-1), torch.ones(2, 3, 7), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
def test_attention_equals_pytorch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_BANd = torch.randn(2, 3, 17, 64, generator=generator)
    key_BAMd = torch.randn(2, 3, 23, 64, generator=generator)
    value_BAMd = torch.randn(2, 3, 23, 32, generator=generator)
    torch.testing.assert_close(
        scaled_dot_product_attention(query_BANd, key_BAMd, value_BAMd),
        nn.functional.scaled_dot_product_attention(query_BANd, key_BAMd, value_BAMd),
        rtol=0,
        atol=TOLERANCE,
    )


@pytest.mark.parametrize(("width", "num_heads"), [(96, 1), (96, 6), (192, 3)])
def test_layer_equals_pytorch_with_the_same_state_dict(width: int, num_heads: int) -> None:
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(width, num_heads, batch_first=True).eval()
    for bias in (reference.in_proj_bias, reference.out_proj.bias):  # PyTorch starts them at zero
        nn.init.normal_(bias)
    layer = MultiHeadAttention(width, num_heads).eval()
    layer.load_state_dict(reference.state_dict(), strict=True)
    tokens_BND = torch.randn(2, 17, width)
    expected_BND, _ = reference(tokens_BND, tokens_BND, tokens_BND)
    torch.testing.assert_close(layer(tokens_BND), expected_BND, rtol=0, atol=TOLERANCE)


def test_pytorch_takes_the_layers_state_dict() -> None:
    ours, theirs = MultiHeadAttention(96, 6).state_dict(), nn.MultiheadAttention(96, 6)
    theirs.load_state_dict(ours, strict=True)
    assert all(torch.equal(value, ours[key]) for key, value in theirs.state_dict().items())


def test_width_that_is_no_multiple_of_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="width 100 is not a multiple of 12 heads"):
        MultiHeadAttention(100, 12)
