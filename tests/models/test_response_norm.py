"""Local response normalization of the two networks that have it, by the equation of Krizhevsky et al. 2012, 3.3."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeport_models import ARCHITECTURES


@pytest.mark.parametrize("name", ["alexnet_2012", "googlenet_2014"])
def test_every_norm_is_the_papers(name: str) -> None:
    with torch.device("meta"):
        module = ARCHITECTURES[name].build()
    norms = [child for child in module.modules() if isinstance(child, nn.LocalResponseNorm)]
    assert norms
    x_BCHW = torch.randn(2, 9, 3, 3, generator=torch.Generator().manual_seed(0)).double() * 50
    expected = torch.empty_like(x_BCHW)
    for i in range(9):
        neighbours = x_BCHW[:, max(0, i - 2) : i + 3]
        expected[:, i] = x_BCHW[:, i] / (2 + 1e-4 * (neighbours**2).sum(dim=1)) ** 0.75
    for norm in norms:
        torch.testing.assert_close(norm(x_BCHW), expected, rtol=1e-12, atol=0)
