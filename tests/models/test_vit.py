"""Vision Transformer: its encoder block against PyTorch's, and the properties of its tokens.

The logits and the layout are compared with torchvision in ``tests/e2e``.
Shapes: B batch, C channels, H W image, N tokens, D width, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgeport_models import ARCHITECTURES
from edgeport_models.attention import sinusoidal_positions
from edgeport_models.vit import VisionTransformer


def small_vit() -> VisionTransformer:
    """Two blocks of width 32, random in every parameter, in float64: differences are then differences of meaning."""
    torch.manual_seed(0)
    module = VisionTransformer(
        patch_size=8, depth=2, width=32, num_heads=4, mlp_width=64, num_classes=5, in_channels=3, image_size=32
    )
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def permuted_patches(image_BCHW: torch.Tensor, side: int, order_N: torch.Tensor) -> torch.Tensor:
    patches_BDN = nn.functional.unfold(image_BCHW, side, stride=side)
    return nn.functional.fold(patches_BDN[..., order_N], image_BCHW.shape[-2:], side, stride=side)


def test_encoder_block_equals_pytorch() -> None:
    """PyTorch's layer with the norms first and GELU is the block of Dosovitskiy et al. 2021, Equations 2 and 3."""
    block = small_vit().encoder.layers[0]
    reference = nn.TransformerEncoderLayer(
        32, 4, 64, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    names = {"ln_1": "norm1", "ln_2": "norm2", "self_attention": "self_attn", "mlp.0": "linear1", "mlp.3": "linear2"}
    state = {}
    for key, value in block.state_dict().items():
        own = next(name for name in names if key.startswith(name))
        state[key.replace(own, names[own])] = value
    reference.load_state_dict(state, strict=True)
    tokens_BND = torch.randn(2, 17, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens_BND), reference.double().eval()(tokens_BND))


def test_every_norm_adds_a_millionth_to_the_variance() -> None:
    module = small_vit()
    tokens_ND = 1e-3 * torch.randn(6, 32, dtype=torch.float64)  # of about that variance
    norms = [child for child in module.modules() if isinstance(child, nn.LayerNorm)]
    assert len(norms) == 5
    for norm in norms:
        centred_ND = tokens_ND - tokens_ND.mean(dim=1, keepdim=True)
        variance_N1 = centred_ND.square().mean(dim=1, keepdim=True)
        expected_ND = centred_ND / (variance_N1 + 1e-6).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(norm(tokens_ND), expected_ND)


@pytest.mark.parametrize(("image_size", "num_tokens"), [(224, 197), (384, 577), (32, 5)])
def test_one_token_a_patch_and_one_for_the_class(image_size: int, num_tokens: int) -> None:
    with torch.device("meta"):
        module = ARCHITECTURES["vit_ti_16"].build(image_size=image_size)
    assert module.encoder.pos_embedding.shape == (1, num_tokens, 192)


def test_position_embedding_alone_tells_patches_apart() -> None:
    module = small_vit()
    image_BCHW = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    moved_BCHW = permuted_patches(image_BCHW, 8, torch.randperm(16))
    with torch.no_grad():
        assert (module(image_BCHW) - module(moved_BCHW)).abs().max() > 1e-3
        module.encoder.pos_embedding.zero_()
        torch.testing.assert_close(module(image_BCHW), module(moved_BCHW))


def test_tokens_are_the_class_token_then_the_patches_row_by_row() -> None:
    module = small_vit()
    image_BCHW = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    seen: list[torch.Tensor] = []
    module.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module(image_BCHW)
        weight_DP = module.conv_proj.weight.flatten(1)
        for row in range(4):
            for column in range(4):
                patch_BP = image_BCHW[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten(1)
                expected_BD = patch_BP @ weight_DP.T + module.conv_proj.bias
                torch.testing.assert_close(seen[0][:, 1 + 4 * row + column], expected_BD)
    assert torch.equal(seen[0][:, 0], module.class_token[0].expand(2, -1))


def test_logits_come_from_the_class_token() -> None:
    module = small_vit()
    encoded: list[torch.Tensor] = []
    module.encoder.register_forward_hook(lambda _module, _inputs, output: encoded.append(output))
    with torch.no_grad():
        logits_BK = module(torch.randn(2, 3, 32, 32, dtype=torch.float64))
        torch.testing.assert_close(logits_BK, module.heads.head(encoded[0][:, 0]))


@pytest.mark.parametrize("name", ["vit_ti_16", "vit_b_16"])
def test_image_size_that_is_no_multiple_of_the_patch_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="image size 100 is not a multiple of the patch size 16"):
        ARCHITECTURES[name].build(image_size=100)


def test_sinusoidal_positions_of_a_grid_that_is_not_square() -> None:
    whole = sinusoidal_positions(5, 5, 8).reshape(5, 5, 8)
    assert torch.equal(sinusoidal_positions(2, 5, 8).reshape(2, 5, 8), whole[:2])
    assert torch.equal(sinusoidal_positions(5, 3, 8).reshape(5, 3, 8), whole[:, :3])


def test_sinusoidal_positions_by_hand() -> None:
    positions_ND = sinusoidal_positions(3, 3, 8)
    assert positions_ND.shape == (9, 8)
    row, column = 2, 1
    angles = [(column, 1.0), (column, 0.01), (row, 1.0), (row, 0.01)]
    sines = [math.sin(place * frequency) for place, frequency in angles]
    cosines = [math.cos(place * frequency) for place, frequency in angles]
    expected = [*sines[:2], *cosines[:2], *sines[2:], *cosines[2:]]
    assert positions_ND[3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="width 6 is not a multiple of 4"):
        sinusoidal_positions(3, 3, 6)


def test_sinusoidal_positions_are_fixed_and_not_in_the_state_dict() -> None:
    module = ARCHITECTURES["vit_digits"].build(positions="sinusoidal")
    assert "encoder.pos_embedding" not in module.state_dict()
    positions_1ND = module.get_submodule("encoder").pos_embedding
    assert not positions_1ND.requires_grad
    assert positions_1ND.shape == (1, 17, 48)
    assert not positions_1ND[0, 0].any()
    learned = ARCHITECTURES["vit_digits"].build()
    num = sum(p.numel() for p in learned.parameters()) - sum(p.numel() for p in module.parameters())
    assert num == 17 * 48


def test_mean_pooling_averages_the_normed_patches() -> None:
    torch.manual_seed(0)
    module = ARCHITECTURES["vit_digits"].build(pooling="mean").eval()
    assert "class_token" not in module.state_dict()
    x_BCHW = torch.randn(2, 1, 16, 16)
    seen = []
    module.get_submodule("encoder.ln").register_forward_hook(lambda _m, _x, out: seen.append(out))
    with torch.no_grad():
        logits_BK = module(x_BCHW)
        expected = module.get_submodule("heads")(seen[0].mean(dim=1))
    assert seen[0].shape == (2, 16, 48)
    assert torch.equal(logits_BK, expected)
