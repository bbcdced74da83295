"""What people wrap their modules in: taken off, folded, or refused; and each remedy, followed, exports."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.source.subject import find_subject
from edgeport_runtime import Classifier, ExportError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

PEOPLE = "cases/modules/people.py"


def _small(**options: Any) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, **options), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )


def _export(module: nn.Module, tmp_path: Path, **options: Any) -> ExportResult:
    return export(
        module,
        ExportConfig(**{"output": tmp_path / "bundle", "image_size": 8, "quantize": (), "force": True, **options}),
    )


def _assert_same(result: ExportResult, module: nn.Module) -> None:
    """The bundle gives what the module gives."""
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), Classifier.load(result.path) as classifier:
        torch.testing.assert_close(torch.tensor(classifier.outputs(x.numpy())), module.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("compiled", "torch.compile was taken off the module"),
        ("data_parallel", "DataParallel was taken off the module"),
        ("weight_norm", "weight_norm was folded into weight of 0 (Conv2d)"),
    ],
)
def test_wrappers_of_a_module_by_file_are_taken_off(
    name: str, note: str, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    config = ExportConfig(
        architecture=f"{shared(PEOPLE)}:{name}", output=tmp_path / "bundle", image_size=8, quantize=()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weight_norm is deprecated, and people have it
        result = export(config)
    assert note in result.notes
    assert result.parity.passed
    model = (result.path / "model.fp32.onnx").read_bytes()
    assert b"_orig_mod" not in model
    assert b"weight_g" not in model


def test_distributed_wrapper_is_taken_off_without_its_process_group(tmp_path: Path) -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = nn.parallel.DistributedDataParallel(_small())
    finally:
        torch.distributed.destroy_process_group()
    result = _export(module, tmp_path)
    assert result.manifest.architecture["name"] == "Sequential"
    assert "DistributedDataParallel was taken off the module" in result.notes
    _assert_same(result, _small())


@pytest.mark.parametrize("prefix", ["", "0.module."])
def test_wrappers_inside_are_taken_off_and_load_both_kinds_of_weights(prefix: str, tmp_path: Path) -> None:
    trained = _small()
    trained[4].bias.data += 1
    state = {f"{prefix}{key}" if prefix else f"0.{key}": value for key, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    module = nn.Sequential(nn.DataParallel(torch.compile(_small())))
    before = list(module.state_dict())
    result = _export(module, tmp_path, weights=tmp_path / "net.pth")
    assert "torch.compile was taken off 0.module" in result.notes
    _assert_same(result, trained)
    assert list(module.state_dict()) == before  # the user's own stays wrapped


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (nn.utils.parametrizations.weight_norm, "WeightNorm"),
        (nn.utils.parametrizations.spectral_norm, "SpectralNorm"),
        (nn.utils.weight_norm, "weight_norm"),
        (nn.utils.spectral_norm, "spectral_norm"),
        (lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5), "pruning"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_parametrized_weights_are_folded(wrap: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    module = _small()
    wrap(module[0])
    subject = find_subject(ExportConfig(output=tmp_path, image_size=8), module)
    assert f"{kind} was folded into weight of 0 (Conv2d)" in subject.notes
    assert set(subject.module.state_dict()) == set(_small().state_dict())
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(subject.module(x), module.eval()(x))
    assert len(module.state_dict()) > 4  # the user's own stays as it is


def test_torchscript_is_refused_and_the_remedy_exports(shared: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is TorchScript, .* give the network as it was before torch\.jit, with its"):
        export(ExportConfig(architecture=f"{shared(PEOPLE)}:torchscript", output=tmp_path / "bundle", image_size=8))
    torch.jit.script(_small()).save(tmp_path / "net.pt")
    with pytest.raises(ExportError, match="is TorchScript"):
        _export(nn.Sequential(torch.jit.load(tmp_path / "net.pt")), tmp_path)
    module = _small()
    module[4].bias.data += 1
    module.load_state_dict(torch.jit.load(tmp_path / "net.pt").state_dict())
    _assert_same(_export(module, tmp_path), _small())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fake_quantization_is_refused_and_the_remedy_exports(tmp_path: Path) -> None:
    trained = _small().train()
    trained.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    torch.ao.quantization.prepare_qat(trained, inplace=True)
    trained(torch.rand(4, 3, 8, 8))
    trained[4].bias.data += 1
    with pytest.raises(ExportError, match=r"imitates quantization \(QAT\); give the network as it was before "):
        _export(trained, tmp_path)
    network = _small()
    network.load_state_dict(trained.state_dict(), strict=False)
    assert torch.equal(network[4].bias, trained[4].bias)
    result = _export(network, tmp_path, quantize=("int8",), calibration="builtin")
    assert [variant.name for variant in result.manifest.variants] == ["fp32", "int8"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_module_is_refused(tmp_path: Path) -> None:
    module = torch.ao.quantization.quantize_dynamic(_small(), {nn.Linear})
    with pytest.raises(ExportError, match=r"4 \(Linear\) is already quantized; give the network in float32, and let "):
        _export(module, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), r"1 \(LazyLinear\) has parameters without a shape"),
        (lambda: _small(device="meta"), r"0 \(Conv2d\) has parameters without values \(device meta\)"),
    ],
)
def test_parameters_that_are_not_there_are_refused(make: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        _export(make(), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_remedy_for_layers_fused_with_their_norm_exports_what_was_trained(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net.append(nn.Linear(8, 5)).train()
        return torch.ao.quantization.fuse_modules_qat(net, [["0", "1", "2"]])

    trained = make()
    trained.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    torch.ao.quantization.prepare_qat(trained, inplace=True)
    for _ in range(3):
        trained(torch.rand(4, 3, 8, 8) + 1)
    with pytest.raises(ExportError, match=r"a layer that was fused .* network\.set_submodule\(NAME, layer\.to_float"):
        _export(trained, tmp_path)
    network = make()
    network.load_state_dict(trained.state_dict(), strict=False)
    network.set_submodule("0", trained.eval()[0].to_float())
    trained.apply(torch.ao.quantization.disable_fake_quant)
    trained.apply(torch.ao.quantization.disable_observer)
    _assert_same(_export(network, tmp_path), trained)


class _Cached(nn.Module):
    """Keeps what it computed of its weights, as LeViT of timm does, until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.body = _small()
        self.cache: dict[str, Any] = {}

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if "scale" not in self.cache:
            self.cache["scale"] = [self.scale * 2]
        result: torch.Tensor = self.body(x_BCHW * self.cache["scale"][0])
        return result

    def train(self, mode: bool = True) -> _Cached:
        self.cache = {}
        return super().train(mode)


def test_a_cache_with_a_history_is_copied(tmp_path: Path) -> None:
    module = _Cached().eval()
    module(torch.rand(1, 3, 8, 8))
    assert not module.cache["scale"][0].is_leaf
    _assert_same(_export(module, tmp_path), module)


def test_a_cache_of_other_weights_is_forgotten(tmp_path: Path) -> None:
    module = _Cached().eval()
    module(torch.rand(1, 3, 8, 8))
    trained = _Cached().eval()
    with torch.no_grad():
        trained.scale.fill_(3)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    _assert_same(_export(module, tmp_path, weights=tmp_path / "trained.pth"), trained)
