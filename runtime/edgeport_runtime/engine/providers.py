"""The devices that a session can run on: a table with one entry each, and why each can or cannot be used here.

A device is requested by name and never replaced silently. ONNX Runtime falls back to the CPU if a provider is missing
or broken, so everything is checked before a session is made, and read back afterwards what runs where.
"""

from __future__ import annotations

import importlib
import json
import platform
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.engine.machine import instruction_sets
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.errors import InputError, SessionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CPU",
    "PROVIDERS",
    "Provider",
    "Selection",
    "find_provider",
    "is_built_in",
    "options_of",
    "plugin_devices",
    "select_device",
    "unusable",
]


class Provider(NamedTuple):
    """One way to run a model.

    Attributes:
        device: its name here.
        ort_name: ONNX Runtime's name for what executes there.
        install: what brings it.
        executes: precisions it computes in, the first being what float32 models run in.
        options: of the provider, by ONNX Runtime's names; units are in the comments.
        plugin: Python package that holds it as a library to be registered, unless it is compiled in.
        hardware: what a plugin's device must be.
        threads_option: the provider's own option for the number of threads, where it has a pool of its own.
        replays_option: the provider's own option to record its kernels once and replay them (CUDA graphs).
        memory: ONNX Runtime's name of the memory that inputs and outputs are kept in; None for the process's own.
    """

    device: str
    ort_name: str
    install: str
    executes: tuple[str, ...]
    options: Mapping[str, str] = {}
    plugin: str | None = None
    hardware: str = "CPU"
    threads_option: str | None = None
    replays_option: str | None = None
    memory: str | None = None

    def executed(self, precision: str | None) -> str:
        """The precision that a variant is executed in; None is a lone file's."""
        if precision is None or precision.endswith("float32"):
            return self.executes[0]
        if "bfloat16" not in self.executes:
            return precision
        floats = "bfloat16" if (instruction_sets() or frozenset()) & _BFLOAT16 else "float32"
        return floats if precision == "float16" else f"{precision}, the rest in {floats}"


def _openvino(device: str, hardware: str, *executes: str) -> Provider:
    return Provider(
        device,
        "OpenVINOExecutionProvider",
        "pip install 'onnxruntime>=1.24' onnxruntime-ep-openvino (an Intel processor, or its GPU or NPU), or pip "
        "install onnxruntime-openvino in an environment without onnxruntime (any x86 processor)",
        executes,
        plugin="onnxruntime_ep_openvino",
        hardware=hardware,
    )


CPU = Provider("cpu", "CPUExecutionProvider", "pip install onnxruntime", ("float32", "int8"))

PROVIDERS: tuple[Provider, ...] = (
    CPU,
    # By itself OpenVINO would run float32 models in 16 bits: `options_of` keeps them in float32.
    _openvino("openvino", "CPU", "float32", "bfloat16", "int8"),
    _openvino("openvino-gpu", "GPU", "float32", "float16", "int8"),
    _openvino("openvino-npu", "NPU", "float16", "int8"),
    Provider(
        "cuda",
        "CUDAExecutionProvider",
        "pip install onnxruntime-gpu in an environment without onnxruntime, and NVIDIA's driver, CUDA and cuDNN",
        ("float32", "float16"),
        {
            "use_tf32": "0",  # its 10 bits of mantissa would not pass for float32
            "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search takes seconds at each new batch size
        },
        replays_option="enable_cuda_graph",
        memory="cuda",
    ),
    Provider(
        "tensorrt",
        "TensorrtExecutionProvider",
        "pip install onnxruntime-gpu in an environment without onnxruntime, and NVIDIA's TensorRT libraries",
        ("float32", "float16", "int8"),
        replays_option="trt_cuda_graph_enable",
        memory="cuda",
    ),
    Provider(
        "coreml",
        "CoreMLExecutionProvider",
        "pip install onnxruntime on macOS",
        ("float16", "float32"),
        {"ModelFormat": "MLProgram"},
    ),
    Provider("directml", "DmlExecutionProvider", "pip install onnxruntime-directml on Windows", ("float32", "float16")),
    Provider(
        "xnnpack",
        "XnnpackExecutionProvider",
        "a build of ONNX Runtime with --use_xnnpack, as on Android and iOS",
        ("float32", "int8"),
        threads_option="intra_op_num_threads",
    ),
    Provider(
        "qnn",
        "QNNExecutionProvider",
        "pip install onnxruntime-qnn on a Qualcomm processor",
        ("int8", "float16"),
        {"backend_type": "htp"},
    ),
    Provider(
        "webgpu",
        "WebGpuExecutionProvider",
        "pip install onnxruntime-ep-webgpu, and on Linux a Vulkan driver",
        ("float32", "float16"),
        plugin="onnxruntime_ep_webgpu",
        hardware="GPU",
    ),
)

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})

# What `auto` tries, in this order, before the CPU.
_PREFERRED = ("cuda", "openvino")


class Selection(NamedTuple):
    """The device that was chosen, and why."""

    provider: Provider
    reasons: tuple[str, ...]


def find_provider(device: str) -> Provider:
    """The table's entry.

    Raises:
        InputError: if there is no such device.
    """
    for provider in PROVIDERS:
        if provider.device == device:
            return provider
    raise InputError(f"unknown device {device!r}; choose one of auto, {', '.join(p.device for p in PROVIDERS)}")


def select_device(device: str) -> Selection:
    """The device to use.

    Args:
        device: a name of the table, or ``auto``: the first of CUDA and OpenVINO that can be used, else the CPU.

    Raises:
        InputError: if there is no such device.
        SessionError: with the remedy, if it cannot be used here.
    """
    if device != "auto":
        provider = find_provider(device)
        reason = unusable(provider)
        if reason is not None:
            raise SessionError(f"device {device!r} cannot be used here: {reason}")
        return Selection(provider, (f"{device} was requested",))
    reasons: list[str] = []
    for name in _PREFERRED:
        provider = find_provider(name)
        reason = unusable(provider)
        if reason is None:
            return Selection(provider, (*reasons, f"{name} can be used"))
        reasons.append(f"not {name}: {reason}")
    return Selection(CPU, (*reasons, "cpu: always available"))


def unusable(provider: Provider) -> str | None:
    """Why a provider cannot be used on this machine, with the remedy; None if it can."""
    ort = import_onnxruntime()
    if is_built_in(ort, provider):
        return None
    if provider.plugin is None:
        return f"this onnxruntime is built without {provider.ort_name}; {provider.install}"
    try:
        devices = plugin_devices(ort, provider)
    except SessionError as error:
        return str(error)
    if devices:
        return None
    return (
        f"{provider.plugin} finds no {provider.hardware} that it supports on this machine "
        f"({platform.machine()}); {provider.install}"
    )


def is_built_in(ort: Any, provider: Provider) -> bool:
    """Whether this ONNX Runtime has it compiled in. A plugin's GPU or NPU shows only when the plugin lists devices."""
    return provider.ort_name in ort.get_available_providers() and provider.hardware == "CPU"


def plugin_devices(ort: Any, provider: Provider) -> list[Any]:
    """ONNX Runtime's devices of a plugin, which is registered if it is not yet.

    Raises:
        SessionError: with the remedy, if the package is missing or its library does not load.
    """
    assert provider.plugin is not None
    if not hasattr(ort, "register_execution_provider_library"):
        raise SessionError(f"onnxruntime {ort.__version__} takes no plugins; install onnxruntime>=1.24")
    try:
        package = importlib.import_module(provider.plugin)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == provider.plugin
        what = "is not installed" if missing else f"does not import ({error})"
        raise SessionError(f"{provider.plugin} {what}; {provider.install}") from None
    with _registering:
        if provider.plugin not in _registered:
            try:
                ort.register_execution_provider_library(provider.plugin, str(package.get_library_path()))
            except Exception as error:  # noqa: BLE001  its exceptions share no base class
                message = " ".join(str(error).split())
                raise SessionError(f"{provider.plugin} does not load: {message}; {provider.install}") from None
            _registered.add(provider.plugin)  # a second time raises
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == provider.ort_name and device.device.type.name == provider.hardware
    ]


def options_of(
    provider: Provider, threads: int | None, *, keeps_float32: bool = True, is_replayed: bool = False
) -> dict[str, str]:
    """The provider's options for a session; arguments as in ``SessionSettings``."""
    options = dict(provider.options)
    if is_replayed and provider.replays_option is not None:
        options[provider.replays_option] = "1"
    if threads is not None and provider.threads_option is not None:
        options[provider.threads_option] = str(threads)
    if provider.ort_name == "OpenVINOExecutionProvider":
        settings: dict[str, str] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None and provider.hardware == "CPU":
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        if keeps_float32 and "float32" in provider.executes:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        options["load_config"] = json.dumps({provider.hardware: settings})
    return options


_registered: set[str] = set()
_registering = threading.Lock()
