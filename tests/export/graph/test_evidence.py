"""Maps of what speaks for a class, and features, against autograd and hooks of PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from contracts import make_contract
from edgeport_export.graph.evidence import add_evidence, keep_features
from edgeport_export.graph.outcome import Left
from edgeport_export.graph.simplify import simplify
from edgeport_export.graph.trace import trace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NUM_CLASSES = 5
# Measured: 3e-7, of values up to 4.
TOLERANCE = 2e-6


def body(channels: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, channels, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3))


class Net(nn.Module):
    """A body whose map is pooled or flattened, and a head."""

    def __init__(self, head: nn.Module, *, pool: str = "mean") -> None:
        super().__init__()
        self.body, self.head, self.pool = body(), head, pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.body(x)
        if self.pool == "mean":
            return self.head(a.mean((2, 3)))
        if self.pool == "last":  # the channels last, as in Swin
            return self.head(a.permute(0, 2, 3, 1).mean((1, 2)))
        if self.pool == "strided":  # of torchvision's Swin, which becomes a Gather
            turned = nn.functional.layer_norm(a.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)
            return self.head(nn.functional.adaptive_avg_pool2d(turned, 1).flatten(1))
        if self.pool == "keep":  # a head of convolutions, as in MobileNetV3
            return self.head(nn.functional.adaptive_avg_pool2d(a, 1)).flatten(1)
        return self.head(a.flatten(1))


class Joined(nn.Module):
    """Whose head adds two ways to the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.other = body(), nn.Linear(6, NUM_CLASSES), nn.Linear(6, NUM_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.body(x).mean((2, 3))
        return self.one(p) + self.other(p.sigmoid())


def simplified(module: nn.Module, folder: Path, *, opset: int = 20, output: str = "logits") -> onnx.ModelProto:
    contract = make_contract(num_classes=NUM_CLASSES, output=output)
    traced = trace(module, contract, opset=opset, path=folder / "exported.onnx")
    simplify(traced, contract, folder / "simplified.onnx")
    return onnx.load(folder / "simplified.onnx")


def inputs(num: int = 3) -> NDArray[np.float32]:
    return 8 * np.random.default_rng(0).standard_normal((num, 1, 32, 32)).astype(np.float32)


def run(model: onnx.ModelProto, **feeds: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


def seeds(*classes: int) -> NDArray[np.float32]:
    return np.eye(NUM_CLASSES, dtype=np.float32)[list(classes)]


def by_autograd(module: Net, x: NDArray[np.float32], seed: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last feature map and the gradient of the weighed logits there, both (B, C, h, w)."""
    kept: list[torch.Tensor] = []
    hook = module.body.register_forward_hook(lambda _, __, a: kept.append(a) or a.retain_grad())
    (module(torch.from_numpy(x)) * torch.from_numpy(seed)).sum().backward()
    hook.remove()
    assert kept[0].grad is not None
    return kept[0].detach(), kept[0].grad


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_map_of_a_linear_head_is_the_class_activation_map(pool: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Net(nn.Linear(6, NUM_CLASSES), pool=pool).eval()
    model = simplified(module, tmp_path)
    assert add_evidence(model) == ("cam", (6, 6))
    logits, maps = run(model, image=inputs(), seed=seeds(0, 3, 3))
    features, _ = by_autograd(module, inputs(), seeds(0, 3, 3))
    weight = module.head.weight.detach()[[0, 3, 3]]
    expected = torch.einsum("bc,bchw->bhw", weight, features)
    np.testing.assert_allclose(maps, expected.numpy(), atol=TOLERANCE)
    bias = module.head.bias.detach().numpy()[[0, 3, 3]]
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, logits[[0, 1, 2], [0, 3, 3]], atol=TOLERANCE)


def test_a_flatten_that_becomes_a_gather(tmp_path: Path) -> None:
    torch.manual_seed(8)
    module = Net(nn.Linear(6, NUM_CLASSES), pool="strided").eval()
    model = simplified(module, tmp_path)
    assert any(node.op_type == "Gather" for node in model.graph.node)
    assert add_evidence(model) == ("cam", (6, 6))
    _, maps = run(model, image=inputs(), seed=seeds(0, 3, 3))
    with torch.no_grad():
        normed = nn.functional.layer_norm(module.body(torch.from_numpy(inputs())).permute(0, 2, 3, 1), (6,))
        expected = torch.einsum("bc,bhwc->bhw", module.head.weight[[0, 3, 3]], normed)
    np.testing.assert_allclose(maps, expected.numpy(), atol=TOLERANCE)


HEADS = {
    "relu": lambda: nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, NUM_CLASSES)),
    "relu6": lambda: nn.Sequential(nn.Linear(6, 7), nn.ReLU6(), nn.Linear(7, NUM_CLASSES)),
    "hardswish": lambda: nn.Sequential(nn.Linear(6, 7), nn.Hardswish(), nn.Linear(7, NUM_CLASSES)),
    "tanh": lambda: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, NUM_CLASSES)),
    "gelu": lambda: nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, NUM_CLASSES)),
    "norm": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, NUM_CLASSES)),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_map_of_another_head_is_grad_cam(head: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = Net(HEADS[head]()).eval()
    if head != "norm":
        with torch.no_grad():
            module.head[0].weight *= 20
            bent = module.head[0](module.body(torch.from_numpy(inputs())).mean((2, 3)))
        assert bent.min() < -3  # both sides of every bend are met
        assert bent.max() > 6
    model = simplified(module, tmp_path)
    check_grad_cam(module, model)


@pytest.mark.parametrize("opset", [18, 23])
def test_a_flattened_map_and_other_operator_sets(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Net(nn.Sequential(nn.Linear(216, 7), nn.ReLU(), nn.Linear(7, NUM_CLASSES)), pool="flat").eval()
    check_grad_cam(module, simplified(module, tmp_path, opset=opset))


def test_a_head_of_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(3)
    head = nn.Sequential(nn.Conv2d(6, 7, 1), nn.Hardswish(), nn.Conv2d(7, NUM_CLASSES, 1))
    module = Net(head, pool="keep").eval()
    check_grad_cam(module, simplified(module, tmp_path))


class Norm2d(nn.LayerNorm):
    """Over the channels, as in ConvNeXt."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_norm_behind_the_pooling(tmp_path: Path) -> None:
    torch.manual_seed(6)
    module = Net(nn.Sequential(Norm2d(6), nn.Flatten(), nn.Linear(6, NUM_CLASSES)), pool="keep").eval()
    check_grad_cam(module, simplified(module, tmp_path))


def check_grad_cam(module: Net, model: onnx.ModelProto) -> None:
    assert add_evidence(model) == ("grad-cam", (6, 6))
    _, maps = run(model, image=inputs(), seed=seeds(0, 3, 2))
    features, gradient = by_autograd(module, inputs(), seeds(0, 3, 2))
    weights = gradient.mean((2, 3), keepdim=True)
    expected = torch.relu((weights * features).sum(1)).numpy()
    assert expected.max() > 10 * TOLERANCE
    np.testing.assert_allclose(maps, expected, atol=TOLERANCE)


def test_the_map_of_probabilities_is_that_of_the_logits(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = Net(nn.Linear(6, NUM_CLASSES)).eval()
    plain = simplified(module, tmp_path)
    with_softmax = simplified(nn.Sequential(module, nn.Softmax(1)).eval(), tmp_path, output="probabilities")
    add_evidence(plain)
    add_evidence(with_softmax)
    feeds = {"image": inputs(), "seed": seeds(1, 2, 3)}
    np.testing.assert_allclose(run(with_softmax, **feeds)[1], run(plain, **feeds)[1], atol=TOLERANCE)


class TinyViT(nn.Module):
    """Two layers of PyTorch's fused attention over 16 patches, and a class token unless they are averaged."""

    def __init__(self, *, has_token: bool, has_mask: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 8)) if has_token else None
        self.qkv = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.head = nn.Linear(8, NUM_CLASSES)
        self.has_mask = has_mask
        self.weights: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            t = torch.cat([self.token.expand(t.shape[0], -1, -1), t], dim=1)
        for layer in self.qkv:
            q, k, v = (one.unflatten(2, (2, 4)).transpose(1, 2) for one in layer(t).chunk(3, dim=2))
            mask = torch.ones(t.shape[1], t.shape[1], dtype=torch.bool) if self.has_mask else None
            out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            if not torch.compiler.is_compiling():
                self.weights.append((q @ k.transpose(2, 3) / 2).softmax(-1).mean(1))
            t = t + out.transpose(1, 2).flatten(2)
        return self.head(t.mean(1) if self.token is None else t[:, 0])


@pytest.mark.parametrize(("has_token", "has_mask", "opset"), [(True, True, 20), (False, False, 20), (True, False, 23)])
def test_fused_attention_is_rolled_out(has_token: bool, has_mask: bool, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(7)
    module = TinyViT(has_token=has_token, has_mask=has_mask).eval()
    model = simplified(module, tmp_path, opset=opset)
    assert add_evidence(model) == ("attention-rollout", (4, 4))
    _, maps = run(model, image=inputs())
    module.weights.clear()
    module(torch.from_numpy(inputs()))
    flow = torch.eye(17 if has_token else 16).repeat(3, 1, 1)
    for weights in module.weights:
        flow = 0.5 * (weights + torch.eye(weights.shape[-1])) @ flow
    row = flow[:, 0, 1:] if has_token else flow.mean(1)
    np.testing.assert_allclose(maps, row.reshape(-1, 4, 4).detach().numpy(), atol=TOLERANCE)


def test_what_has_no_map_tells_why(tmp_path: Path) -> None:
    model = simplified(Joined().eval(), tmp_path)
    before = model.SerializeToString()
    with pytest.raises(Left, match=r"joins 2 values; it has no attention"):
        add_evidence(model)
    assert model.SerializeToString() == before
    with pytest.raises(Left, match=r"joins 2 values"):
        keep_features(model)


def test_features_are_what_the_last_linear_layer_reads(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = Net(HEADS["gelu"]()).eval()
    model = simplified(module, tmp_path)
    assert keep_features(model) == 7
    kept: list[torch.Tensor] = []
    module.head[2].register_forward_hook(lambda _, given, __: kept.append(given[0].detach()))
    module(torch.from_numpy(inputs()))
    (features,) = run(model, image=inputs())
    np.testing.assert_allclose(features, kept[0].numpy(), atol=TOLERANCE)
