"""The lowest possible latency of networks here: their operations over the rate that a large matrix product reaches.

    python tools/bench_peak.py [NAME ...]

Rates are of products of 2048 x 2048 matrices by ONNX Runtime (MatMul in float32, MatMulInteger of uint8 and int8), the
best of the medians of a few turns; operations are two for each multiplication that PyTorch's counter finds.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from edgeport_models import ARCHITECTURES
from edgeport_runtime.engine.machine import describe_machine
from edgeport_runtime.engine.ort import import_onnxruntime
from edgeport_runtime.tuning.timing import time_in_turn

NAMES = ("lenet5", "alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "vit_b_16")
SIDE, ROUNDS = 2048, 10


def product(operator: str, dtypes: tuple[Any, Any], result: int) -> Any:
    """A session that multiplies its input with a constant, and the input."""
    a, b = (np.random.default_rng(0).integers(0, 100, (SIDE, SIDE)).astype(dtype) for dtype in dtypes)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        operator,
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(a.dtype), [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", result, [SIDE, SIDE])],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def operations(name: str) -> int:
    """Of one image."""
    spec = ARCHITECTURES[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        spec.build().eval()(torch.zeros(1, *spec.input_shape))
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"(default {' '.join(NAMES)})")
    names = parser.parse_args().names or NAMES
    products = {
        "float32": product("MatMul", (np.float32, np.float32), TensorProto.FLOAT),
        "int8": product("MatMulInteger", (np.uint8, np.int8), TensorProto.INT32),
    }
    times = time_in_turn(products, rounds=ROUNDS)
    rates = {name: 2 * SIDE**3 / (1e9 * statistics.median(values)) for name, values in times.items()}
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['num_cpus']} processors: ", end="")
    print(", ".join(f"{name} {rate:.2f} TOP/s" for name, rate in rates.items()))
    for name in names:
        count = operations(name)
        floors = ", ".join(f"{precision} {count / rate / 1e9:.3g} ms" for precision, rate in rates.items())
        print(f"{name:<10} {count / 1e9:7.3g} GOP per image; floor {floors}")


if __name__ == "__main__":
    main()
