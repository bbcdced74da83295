"""Devices: nothing falls back in silence, whatever is missing or broken, and what runs where is known."""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeport_export import ExportConfig, export
from edgeport_runtime import Classifier, InputError, ParityError, SessionError
from edgeport_runtime.commands import doctor
from edgeport_runtime.commands.cli import main
from edgeport_runtime.engine import providers
from edgeport_runtime.engine.providers import PROVIDERS, Provider, select_device, unusable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

    EditManifest = Callable[[Path, Callable[[dict[str, Any]], object]], None]

# In every build of ONNX Runtime, and runs none of our operators: what it does not run falls to the CPU.
AZURE = Provider("azure", "AzureExecutionProvider", "nothing", ("float32",))


def _add(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    monkeypatch.setattr(providers, "PROVIDERS", (*PROVIDERS, provider))


def test_explain_tells_what_runs_where_and_why(lenet5: ExportResult) -> None:
    with Classifier.load(lenet5.path, variant="fp32", device="cpu", threads=1) as classifier:
        told = classifier.explain()
    graph = onnx.load(lenet5.path / "model.fp32.onnx").graph
    assert (told["device"], told["variant"], told["precision"], told["threads"]) == ("cpu", "fp32", "float32", 1)
    assert told["reasons"] == ["cpu was requested", "fp32: requested"]
    assert list(told["assignment"]) == ["CPUExecutionProvider"]
    counts = told["assignment"]["CPUExecutionProvider"]
    assert counts["Conv"] == sum(node.op_type == "Conv" for node in graph.node) == 2
    assert sum(counts.values()) == len(graph.node)
    assert json.loads(json.dumps(told)) == told


def test_strict_refuses_what_would_run_elsewhere(lenet5: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, AZURE)
    with Classifier.load(lenet5.path, device="azure") as classifier:
        assert classifier.device == "azure"
        assert list(classifier.explain()["assignment"]) == ["CPUExecutionProvider"]  # and it says so
    with pytest.raises(SessionError, match=r"azure does not run every node of .*without it the others run on"):
        Classifier.load(lenet5.path, device="azure", strict=True)
    Classifier.load(lenet5.path, device="cpu", strict=True).close()


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "qnn", "directml", "xnnpack"])
def test_a_provider_that_is_not_built_in_is_an_error_with_the_remedy(device: str, lenet5: ExportResult) -> None:
    provider = providers.find_provider(device)
    if provider.ort_name in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {device}")
    with pytest.raises(SessionError) as caught:
        Classifier.load(lenet5.path, device=device)
    assert f"device '{device}' cannot be used here: this onnxruntime is built without" in str(caught.value)
    assert provider.install in str(caught.value)


def test_a_provider_whose_libraries_do_not_load_is_not_left_out_in_silence(
    lenet5: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with CUDA's libraries missing: the provider is listed, and ONNX Runtime goes on without it."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    listed = ["CUDAExecutionProvider", *onnxruntime.get_available_providers()]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    left_out = r"ONNX Runtime .* ignores the device 'cuda'.*NVIDIA"
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(SessionError, match=left_out):
        Classifier.load(lenet5.path, device="cuda")
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(SessionError, match="cuda does not run every node"):
        Classifier.load(lenet5.path, strict=True)
    with pytest.warns(UserWarning, match="CUDA"):
        classifier = Classifier.load(lenet5.path)
    assert classifier.device == "cpu"
    assert re.search(left_out, classifier.explain()["reasons"][0])


PLUGIN = Provider("made-up", "MadeUpExecutionProvider", "pip install made-up", ("float32",), plugin="made_up_plugin")


def _install(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    package = ModuleType("made_up_plugin")
    package.get_library_path = lambda: str(library)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_plugin", package)


def test_a_plugin_that_is_missing_or_broken_names_the_remedy(
    lenet5: ExportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(monkeypatch, PLUGIN)
    with pytest.raises(SessionError, match="made_up_plugin is not installed; pip install made-up"):
        Classifier.load(lenet5.path, device="made-up")
    library = tmp_path / "library.so"
    library.write_bytes(b"not a library")
    _install(monkeypatch, library)
    with pytest.raises(SessionError, match=r"made_up_plugin does not load: .*; pip install made-up"):
        Classifier.load(lenet5.path, device="made-up")
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    with pytest.raises(SessionError, match=r"takes no plugins; install onnxruntime>=1\.24"):
        Classifier.load(lenet5.path, device="made-up")


def test_a_plugin_without_a_device_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[str] = []
    _install(monkeypatch, tmp_path / "library.so")
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda name, _: registered.append(name))
    monkeypatch.setattr(providers, "_registered", set())
    for _ in range(2):
        reason = unusable(PLUGIN)
        assert reason is not None
        assert reason.startswith("made_up_plugin finds no CPU that it supports on this machine")
    assert registered == ["made_up_plugin"]  # ONNX Runtime raises when it is registered twice


def test_auto_tells_what_it_chose_and_why_not_the_others(
    lenet5: ExportResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(providers, "unusable", lambda provider: None if provider.device == "cpu" else "it is broken")
    chosen = select_device("auto")
    assert chosen.provider.device == "cpu"
    assert chosen.reasons == ("not cuda: it is broken", "not openvino: it is broken", "cpu: always available")
    assert main(["info", str(lenet5.path), "--assignment"]) == 0
    printed = capsys.readouterr().out
    assert "not cuda: it is broken" in printed
    assert "CPUExecutionProvider" in printed
    assert main(["info", str(lenet5.path / "model.fp32.onnx"), "--assignment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert main(["info", str(lenet5.path), "--device", "cpu"]) == 1
    assert "--device requires --assignment" in capsys.readouterr().err
    monkeypatch.setattr(providers, "unusable", lambda _: None)
    assert select_device("auto").provider.device == "cuda"


def test_an_unknown_device_lists_the_known_ones(lenet5: ExportResult) -> None:
    with pytest.raises(InputError, match=r"unknown device 'gpu'; choose one of auto, cpu, openvino, .*webgpu"):
        Classifier.load(lenet5.path, device="gpu")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int8 variants for two kinds of x86."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    return export(ExportConfig(architecture="lenet5", output=output, target=("cpu", "cpu-avx2"))).path


def test_int8_never_runs_where_it_could_saturate(int8: Path, tmp_path: Path, processor: Callable[..., None]) -> None:
    alone = export(
        ExportConfig(
            architecture="lenet5", output=tmp_path / "alone", target=("cpu", "openvino"), calibration="builtin"
        )
    ).path
    for sets, is_exact, expected in (
        ("avx2 avx512_vnni", False, "int8"),
        ("avx2", True, "int8-avx2"),
        (None, True, "int8"),  # the system does not tell: what products give decides
        (None, False, "int8-avx2"),
    ):
        processor(sets, is_exact=is_exact)
        with Classifier.load(int8, variant="int8") as classifier:
            assert classifier.variant is not None
            assert classifier.variant.name == expected
    for name in ("int8", "int8-openvino"):
        with pytest.raises(InputError, match=rf"'{name}' could saturate on this processor.*--target cpu-avx2"):
            Classifier.load(alone, variant=name)
        with pytest.raises(InputError, match=rf"model.{name}.onnx could saturate on this processor.*--target cpu-avx2"):
            Classifier.load(alone / f"model.{name}.onnx")
    Classifier.load(int8 / "model.int8-avx2.onnx").close()
    processor("asimddp", architecture="aarch64")
    Classifier.load(alone, variant="int8").close()
    Classifier.load(alone / "model.int8.onnx").close()


def test_verify_at_load_refuses_what_is_not_pytorch(int8: Path, tmp_path: Path, edit_manifest: EditManifest) -> None:
    import shutil

    Classifier.load(int8, variant="fp32", verify=True).close()
    bundle = tmp_path / "bundle"
    shutil.copytree(int8, bundle)
    edit_manifest(bundle, lambda data: data["variants"][0].update(tolerance=1e-12))
    with pytest.raises(ParityError, match=r"fp32 on cpu \(in float32\) does not give what PyTorch computes"):
        Classifier.load(bundle, variant="fp32", verify=True)


def test_settings_of_memory_and_threads_do_not_change_the_answer(int8: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32), dtype=np.float32)
    for variant in ("fp32", "int8"):
        with Classifier.load(int8, variant=variant) as plain:
            expected = plain.logits(x)
        with Classifier.load(int8, variant=variant, low_memory=True, spin=False, threads=1) as sparing:
            # Measured: 0 for int8; weights that are not repacked are summed in another order, 1.5e-7 for fp32.
            np.testing.assert_allclose(sparing.logits(x), expected, rtol=1e-5, atol=1e-6)


def test_doctor_lists_what_can_be_used_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["devices"]) == [provider.device for provider in PROVIDERS]
    assert told["devices"]["cpu"] is None
    assert told["packages"]["onnxruntime"] == onnxruntime.__version__
    assert told["cpus"]["allowed"] >= 1
    assert told["problems"] == []
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "device         cpu: can be used" in printed
    assert f"cache          {told['cache']['folder']}, " in printed


def test_doctor_names_clashing_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: both)
    assert main(["doctor"]) == 1
    assert "onnxruntime and onnxruntime-gpu overwrite each other; pip uninstall" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["doctor", "--json"]) == 1
    assert "ONNX Runtime is not installed" in json.loads(capsys.readouterr().out)["problems"][1]
