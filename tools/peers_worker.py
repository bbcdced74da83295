"""Runs one contender of bench_peers.py in a process of its own, with only what its own environment has.

    python peers_worker.py KIND OPTIONS

Commands come as JSON lines on standard input, with the path of an array; answers are JSON lines: `run` writes the
outputs beside it, `time` gives milliseconds of calls after two that do not count, for some time at least.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Run = "Callable[[np.ndarray], np.ndarray]"


def reference_module(name: str, weights: str) -> Any:
    """The network in torchvision's own code (LeNet-5 in EdgePort's), with these weights, for evaluation."""
    import torch

    if name == "lenet5":
        from edgeport_models import ARCHITECTURES

        module = ARCHITECTURES[name].build()
    else:
        import tvshim

        options = {"aux_logits": False, "transform_input": False, "init_weights": False} if name == "googlenet" else {}
        module = getattr(tvshim.torchvision.models, name)(weights=None, **options)
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module.eval()


def torch_module(name: str, weights: str, *, compiles: bool = False, is_bfloat16: bool = False) -> Run:
    """In eager mode or compiled."""
    import torch

    dtype = torch.bfloat16 if is_bfloat16 else torch.float32
    module = reference_module(name, weights).to(dtype)
    call = torch.compile(module) if compiles else module

    def run(x_BCHW: Any) -> Any:
        with torch.inference_mode():
            return call(torch.from_numpy(x_BCHW).to(dtype)).float().numpy()

    return run


def onnxruntime_file(path: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x_BCHW: session.run(None, {"image": x_BCHW})[0]


def openvino_file(path: str, precision: str) -> Run:
    """OpenVINO itself, compiled for each batch size that comes, which is its fastest way."""
    import openvino

    core, requests = openvino.Core(), {}

    def run(x_BCHW: Any) -> Any:
        if x_BCHW.shape not in requests:
            model = core.read_model(path)
            model.reshape(x_BCHW.shape)
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            requests[x_BCHW.shape] = core.compile_model(model, "CPU", settings).create_infer_request()
        return requests[x_BCHW.shape].infer({0: x_BCHW})[0]

    return run


def edgeport_bundle(path: str, variant: str, device: str) -> Run:
    from edgeport_runtime import Classifier

    return Classifier.load_exactly(Path(path), variant=variant, device=device).outputs


def quantize_by_nncf(source: str, path: str, batches: str, *, is_transformer: bool) -> None:
    """OpenVINO's own int8: its performance preset, and for a transformer that type of model."""
    import nncf
    import openvino

    options = {"model_type": nncf.ModelType.TRANSFORMER} if is_transformer else {}
    images = [image[np.newaxis] for image in np.load(batches)]
    model = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
        **options,
    )
    openvino.save_model(model, path)


KINDS = {
    "torch": torch_module,
    "onnxruntime": onnxruntime_file,
    "openvino": openvino_file,
    "edgeport": edgeport_bundle,
}


def main() -> None:
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        if kind == "nncf":
            quantize_by_nncf(**options)
            return
        run = KINDS[kind](**options)
        answers.write("{}\n")
        answers.flush()
        for line in sys.stdin:
            command = json.loads(line)
            x_BCHW, answer = np.load(command["input"]), {}
            if command["do"] == "run":
                np.save(Path(command["output"]), run(x_BCHW))
            else:
                times: list[float] = []
                while len(times) < 2 + command["calls"] or sum(times) < command["least_ms"]:
                    start = time.perf_counter()
                    run(x_BCHW)
                    times.append(1e3 * (time.perf_counter() - start))
                answer = {"times_ms": times[2:]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
