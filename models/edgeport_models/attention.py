"""Scaled dot-product and multi-head attention (Vaswani et al. 2017, Sections 3.2.1 and 3.2.2).

Shapes: B batch, A heads, N tokens, D width, d_k = D / A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MultiHeadAttention", "attention_weights", "scaled_dot_product_attention", "sinusoidal_positions"]


def attention_weights(query_BANd: Tensor, key_BANd: Tensor) -> Tensor:
    """How much each token attends to each other one: softmax(Q K^T / sqrt(d_k)) (Vaswani et al. 2017, Equation 1).

    Args:
        query_BANd: queries, (..., N, d_k).
        key_BANd: keys, (..., M, d_k).

    Returns:
        Weights (..., N, M); each row sums to 1.
    """
    scores_BANN = query_BANd @ key_BANd.transpose(-2, -1) / math.sqrt(query_BANd.shape[-1])
    return torch.softmax(scores_BANN, dim=-1)


def scaled_dot_product_attention(query_BANd: Tensor, key_BANd: Tensor, value_BANd: Tensor) -> Tensor:
    """The values, summed with the attention weights (Vaswani et al. 2017, Equation 1).

    Args:
        query_BANd: queries, (..., N, d_k).
        key_BANd: keys, (..., M, d_k).
        value_BANd: values, (..., M, d_v).

    Returns:
        (..., N, d_v).
    """
    return attention_weights(query_BANd, key_BANd) @ value_BANd


def sinusoidal_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed position encodings of a grid: a quarter of the width each for sine and cosine of column and row.

    Vaswani et al. 2017, Section 3.5, in two dimensions as in MoCo v3 (Chen et al. 2021) and Beyer et al. 2022.

    Args:
        rows: of the grid.
        columns: of the grid.
        width: D, a multiple of 4.

    Returns:
        (rows * columns, D), row by row.

    Raises:
        ValueError: if the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4, which sinusoidal positions need")
    frequencies_q = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles_Sq = torch.arange(max(rows, columns), dtype=torch.float64)[:, None] * frequencies_q
    columns_Nq, rows_Nq = angles_Sq[:columns].repeat(rows, 1), angles_Sq[:rows].repeat_interleave(columns, dim=0)
    parts = (columns_Nq.sin(), columns_Nq.cos(), rows_Nq.sin(), rows_Nq.cos())
    return torch.cat(parts, dim=1).to(torch.float32)


class MultiHeadAttention(nn.Module):
    """Self-attention with several heads, in the state-dict layout of ``torch.nn.MultiheadAttention``.

    Queries, keys and values come from three separate products with slices of ``in_proj_weight``: the slices are
    constants of the exported graph, where one product followed by a split costs inference engines a copy.

    Args:
        width: D, a multiple of ``num_heads``.
        num_heads: A.

    Raises:
        ValueError: if the width is not a multiple of the number of heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Attend within each sequence; (B, N, D) to (B, N, D)."""
        query, key, value = (
            self._split_heads(nn.functional.linear(tokens_BND, weight, bias))
            for weight, bias in zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        )
        heads_BANd = scaled_dot_product_attention(query, key, value)
        joined_BND: Tensor = self.out_proj(heads_BANd.transpose(1, 2).flatten(2))
        return joined_BND

    def _split_heads(self, tokens_BND: Tensor) -> Tensor:
        tokens_BNAd = tokens_BND.reshape(*tokens_BND.shape[:2], self.num_heads, -1)
        return tokens_BNAd.transpose(1, 2)
