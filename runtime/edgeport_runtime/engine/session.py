"""ONNX Runtime behind one class: it loads a file, and takes and returns float32 arrays."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.bundle.contract import OUTPUTS
from edgeport_runtime.engine.machine import available_cpus
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.engine.providers import CPU, is_built_in, options_of, plugin_devices
from edgeport_runtime.errors import DeviceError, ManifestError, SessionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeport_runtime.engine.binding import BoundRun
    from edgeport_runtime.engine.providers import Provider

__all__ = ["INPUT_NAME", "NodeTime", "Session", "SessionSettings", "profile", "remedy_for_foreign", "save_optimized"]

INPUT_NAME = "image"
_WARM_UPS, _KERNEL = 2, "_kernel_time"
_LOG_FATAL = 4  # errors reach the caller as exceptions; ONNX Runtime need not print them as well


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSettings:
    """How a session runs.

    Attributes:
        threads: threads within an operator; None for as many as the processors that this process may use.
        spins: idle threads wait for the next call at full load for a while. Latency is a little better, and the
            processors are not there for others.
        is_strict: refuse a model of which the device cannot run every node.
        has_low_memory: no arena, and weights are not repacked: less memory, and slower.
        is_prepared: the file is one of ``save_optimized``, whose repacked weights are mapped.
        unpack_weights: turn weights that are stored in int8 into floats once, when the model is loaded; otherwise
            ONNX Runtime does it on every call.
        keeps_float32: float values stay in 32 bits, also where the device prefers fewer.
        is_replayed: the batch is fixed and the values are floats, so that a GPU can record its work and replay it.
    """

    threads: int | None = None
    spins: bool = True
    is_strict: bool = False
    has_low_memory: bool = False
    is_prepared: bool = False
    unpack_weights: bool = False
    keeps_float32: bool = True
    is_replayed: bool = False


class Session:
    """One loaded model. ``run`` may be called from several threads at once.

    Args:
        path: the ``.onnx`` file.
        provider: what to run it on.
        settings: how.

    Raises:
        SessionError: if ONNX Runtime is missing or refuses the file, or the device does not run it.
        ManifestError: if the graph does not have EdgePort's input and output.
    """

    def __init__(self, path: Path, *, provider: Provider, settings: SessionSettings | None = None) -> None:
        self.path, self.settings = path, settings or SessionSettings()
        self._session = _make_session(path, provider, self.settings)
        self.assignment = _assignment(self._session)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.input_shape: list[int | str] = []
        self.output_shape: list[int | str] = []
        self.output_name: str = ""
        self._bound: BoundRun | None = None
        self._find_ends()
        self._bind(provider)

    def _find_ends(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != [INPUT_NAME] or len(outputs) != 1 or outputs[0].name not in OUTPUTS:
            raise ManifestError(
                f"{self.path} has no input {INPUT_NAME!r} and output {' or '.join(OUTPUTS)}; EdgePort did not write it"
                f"{remedy_for_foreign(self.path)}"
            )
        self.input_shape = inputs[0].shape
        self.output_name = outputs[0].name
        self.output_shape = outputs[0].shape

    def _bind(self, provider: Provider) -> None:
        if provider.memory is not None:
            from edgeport_runtime.engine.binding import BoundRun

            self._bound = BoundRun(import_onnxruntime(), self._session, provider.memory)

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The graph's output (B, K) float32.

        Raises:
            SessionError: if the run fails, for want of memory for example.
        """
        return self._call({INPUT_NAME: x_BCHW})

    def _call(self, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return self._call_all(feeds, [self.output_name])[0]

    def _call_all(self, feeds: dict[str, NDArray[Any]], outputs: list[str]) -> list[NDArray[Any]]:
        x = next(iter(feeds.values()))
        try:
            if self._bound is not None:
                return [self._bound(x)]
            found: list[NDArray[Any]] = self._session.run(outputs, feeds)
        except Exception as error:  # noqa: BLE001  its exceptions share no base class
            raise SessionError(f"the model failed on an input of shape {x.shape}: {_one_line(error)}") from None
        return found


class NodeTime(NamedTuple):
    """A node as ONNX Runtime runs it, often several of the file in one: its name, operator, and median time."""

    name: str
    op_type: str
    milliseconds: float


def profile(
    path: Path, x_BCHW: NDArray[np.float32], *, provider: Provider, settings: SessionSettings, calls: int
) -> list[NodeTime]:
    """Time each node by ONNX Runtime's profiler, in the order in which they run.

    Args:
        path: the ``.onnx`` file.
        x_BCHW: input of each call.
        provider: what to run it on; the times of those that queue their work are not of the work itself.
        settings: how.
        calls: how many are timed, after two that are not.

    Raises:
        SessionError: as ``Session``.
    """
    ort = import_onnxruntime()
    options = _session_options(ort, path, provider, settings)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _open(ort, path, options, provider, settings)
        for _ in range(calls + _WARM_UPS):
            session.run(None, {INPUT_NAME: x_BCHW})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            node = (name.removesuffix(_KERNEL), str(event["args"]["op_name"]))
            times.setdefault(node, []).append(event["dur"] / 1e3)
    return [NodeTime(*node, statistics.median(taken[_WARM_UPS:] or taken)) for node, taken in times.items()]


def remedy_for_foreign(path: Path) -> str:
    """What to do with a model that EdgePort did not write, to end a message with."""
    return (
        "; run-model predict and evaluate take it with options that say how an image becomes its input (--image-size, "
        f"--mean, --std, or --contract FILE), and export-model {shlex.quote(str(path))} -o DIR makes a bundle of it"
    )


def save_optimized(path: Path, target: Path, *, settings: SessionSettings) -> None:
    """Write a model as the CPU provider reworks it when it is loaded, with its repacked weights in a file beside it.

    Raises:
        SessionError: if it cannot be written.
    """
    ort = import_onnxruntime()
    options = _session_options(ort, path, CPU, settings)
    options.optimized_model_filepath = str(target)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": target.with_suffix(".data").name,
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    _open(ort, path, options, CPU, settings)


def _make_session(path: Path, provider: Provider, settings: SessionSettings) -> Any:
    ort = import_onnxruntime()
    options = _session_options(ort, path, provider, settings)
    session = _open(ort, path, options, provider, settings)
    # A provider whose libraries do not load is left out with a warning only.
    if provider.ort_name not in session.get_providers():
        raise DeviceError(
            f"ONNX Runtime {ort.__version__} ignores the device {provider.device!r}: {provider.ort_name} does not load "
            f"here; {provider.install}"
        )
    return session


def _session_options(ort: Any, path: Path, provider: Provider, settings: SessionSettings) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    threads = settings.threads or _limited_threads()
    if threads is not None:
        options.intra_op_num_threads = threads
    entries = {"session.record_ep_graph_assignment_info": "1"}
    if path.suffix == ".ort":  # its weights are used where they lie in the file, mapped into memory
        entries |= {"session.use_memory_mapped_ort_model": "1", "session.use_ort_model_bytes_for_initializers": "1"}
    if settings.unpack_weights:
        entries["session.disable_quant_qdq"] = "1"
    if not settings.spins:
        entries["session.intra_op.allow_spinning"] = "0"
    if settings.has_low_memory:
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        if not settings.is_prepared:
            entries["session.disable_prepacking"] = "1"
    if settings.is_strict and provider.ort_name != CPU.ort_name:
        entries["session.disable_cpu_ep_fallback"] = "1"
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _open(ort: Any, path: Path, options: Any, provider: Provider, settings: SessionSettings) -> Any:
    threads = settings.threads or _limited_threads()
    providers = None
    provider_options = options_of(
        provider, threads, keeps_float32=settings.keeps_float32, is_replayed=settings.is_replayed
    )
    if provider.plugin is None or is_built_in(ort, provider):
        if provider.plugin is not None:
            provider_options["device_type"] = provider.hardware
        providers = [(provider.ort_name, provider_options)]
    else:
        # By its name in `providers` a plugin would be left out without a word.
        options.add_provider_for_devices(plugin_devices(ort, provider)[:1], provider_options)
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # noqa: BLE001  its exceptions share no base class
        message = _one_line(error)
    if settings.is_strict and "fallback to CPU EP has been explicitly disabled" in message:
        raise SessionError(
            f"{provider.device} does not run every node of {path}, which strict=True requires; without it the "
            "others run on the CPU, and explain() lists them"
        )
    if "Protobuf parsing failed" in message or "No graph was found" in message:
        raise SessionError(f"{path} is not an ONNX model, or is damaged; copy it again")
    raise SessionError(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {message}")


def _limited_threads() -> int | None:
    """ONNX Runtime counts the machine's cores; if fewer may be used, tell it how many."""
    allowed = available_cpus()
    return allowed if allowed < (os.cpu_count() or 1) else None


def _assignment(session: Any) -> dict[str, list[str]] | None:
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None  # before ONNX Runtime 1.24
    nodes: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return nodes


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
