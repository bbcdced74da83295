"""An ``.onnx`` file of somebody else: exported as it computes, or refused in a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeport_export import ExportConfig, export
from edgeport_export.cli import main as export_model
from edgeport_export.graph import simplify as simplify_module
from edgeport_export.source.given_file import find_given
from edgeport_runtime import Classifier, InputError, ParityError
from edgeport_runtime.bundle.manifest import load_manifest
from edgeport_runtime.errors import EdgeportError
from edgeport_runtime.outputs.metrics import relative_l2
from given_files import NUM_CLASSES, SIZE, alter, own_answers, write_net

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult


def _export(file: Path, **options: Any) -> ExportResult:
    config = {"architecture": str(file), "output": file.parent / "bundle", "quantize": (), **options}
    return export(ExportConfig(**config))


def _images(count: int, layout: str = "nchw") -> np.ndarray[Any, Any]:
    shape = (count, 3, SIZE, SIZE) if layout == "nchw" else (count, SIZE, SIZE, 3)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"opset": 7, "batch": 1}, ["opset 7 was converted to 20", "takes 1 image at once, and was made to take any"]),
        ({"opset": 9, "batch": 1, "rows": 1}, ["was made to take any number"]),
        ({"batch": 4, "rows": 4}, ["the file takes 4 images at once, and was made to take any number"]),
        ({"layout": "nhwc"}, ["has its channels last (NHWC)"]),
        ({"ending": ("Unsqueeze2",)}, []),
        ({"others": ("features",)}, []),
        ({"shuffled": True, "opset": 20}, []),
    ],
    ids=["opset7", "opset9", "batch4", "nhwc", "four-axes", "two-outputs", "unsorted"],
)
def test_a_bundle_gives_what_the_file_gives(options: dict[str, Any], told: list[str], tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", **options)
    output = onnx.load(file).graph.output[0].name
    result = _export(file, output_name=output if "others" in options else None)
    assert [stage.stage for stage in result.parity.stages] == ["adapted", "simplified", "variant fp32", "runtime fp32"]
    x_BCHW = _images(4)
    own = own_answers(file, x_BCHW.transpose(0, 2, 3, 1) if "layout" in options else x_BCHW, output)
    with Classifier.load(result.path) as classifier:
        assert classifier.contract.batch is None
        # Measured: equal to the bit; another machine may order additions otherwise for another batch.
        np.testing.assert_allclose(classifier.logits(x_BCHW), own, rtol=0, atol=2e-6 * np.abs(own).max())
        np.testing.assert_allclose(classifier.logits(x_BCHW[:1]), own[:1], rtol=0, atol=2e-6 * np.abs(own).max())
    notes = "\n".join(result.notes)
    assert all(text in notes for text in told)
    weights = dict(load_manifest(result.path).weights)
    assert (weights["source"], weights["file"]) == ("onnx", "net.onnx")
    assert result.manifest.variants[0].opset == 20
    transposes = [node.op_type for node in onnx.load(result.path / "model.fp32.onnx").graph.node].count("Transpose")
    assert transposes == 0


def test_an_opset_that_cannot_be_converted_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeport_export.source import given_fit

    monkeypatch.setattr(given_fit, "convert_opset", lambda *_: None)
    file = write_net(tmp_path / "net.onnx", opset=11)
    result = _export(file, quantize=None, calibration="builtin")
    assert [(variant.name, variant.opset) for variant in result.manifest.variants] == [("fp32", 11)]
    for note in (
        "opset 11 is kept: a conversion to 20 does not give",
        "no int8 variant: int8 and float16 need opset 13",
    ):
        assert any(note in told for told in result.notes)
    for options in ({"quantize": ("int8",), "calibration": "builtin"}, {"preprocess": "in-graph"}):
        with pytest.raises(EdgeportError, match="stays in opset 11; omit"):
            _export(file, force=True, **options)


@pytest.mark.parametrize("own", [11, 17, 20])
def test_an_opset_that_is_asked_for_is_written(own: int, tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", opset=own)
    result = _export(file, quantize=("fp16",), opset=13)
    assert [variant.opset for variant in result.manifest.variants] == [13, 13]
    for path in result.path.glob("*.onnx"):
        assert [entry.version for entry in onnx.load(path).opset_import] == [13]
    assert f"opset {own} was converted to 13" in result.notes
    with pytest.raises(InputError, match="--opset is 13; use --opset 18 or later"):
        _export(file, opset=13, preprocess="in-graph", force=True)


def test_an_opset_that_is_asked_for_and_cannot_be_is_refused(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", opset=20, ending=("Gelu",))
    with pytest.raises(EdgeportError, match=r"--opset is 13, but net\.onnx has opset 20"):
        _export(file, opset=13)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(32, NUM_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        features = self.body(x_BCHW)
        logits: torch.Tensor = self.head(features.view(features.shape[0], -1))
        return logits


@pytest.mark.parametrize("dynamo", [True, False])
def test_files_of_pytorch_give_what_the_module_gives(dynamo: bool, tmp_path: Path) -> None:
    module, file = _Small().eval(), tmp_path / "net.onnx"
    options: dict[str, Any] = {"external_data": True} if dynamo else {"opset_version": 11}
    torch.onnx.export(module, (torch.zeros(1, 3, SIZE, SIZE),), file, dynamo=dynamo, verbose=False, **options)
    x_BCHW = _images(5)
    with torch.no_grad():
        expected = module(torch.from_numpy(x_BCHW)).numpy()
    reference = tmp_path / "reference.npz"
    np.savez(reference, inputs=x_BCHW, outputs=expected)
    result = _export(file, reference=reference, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert result.parity.stages[0].stage == "reference"
    with Classifier.load(result.path) as classifier:
        np.testing.assert_allclose(classifier.logits(x_BCHW), expected, rtol=0, atol=1e-5)
    assert ("data" in result.manifest.weights) == dynamo
    assert "batch" in onnx.load(result.path / "model.fp32.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param
    np.savez(reference, inputs=x_BCHW, outputs=expected * 1.01 + 0.01 * np.arange(NUM_CLASSES))
    with pytest.raises(ParityError, match=r"stage reference: net\.onnx departs from .*reference\.npz: relative L2"):
        _export(file, reference=reference, force=True)


@pytest.mark.parametrize("is_open", [False, True])
def test_an_input_that_is_not_square(is_open: bool, tmp_path: Path) -> None:
    module, file = _Small().eval(), tmp_path / "net.onnx"
    torch.onnx.export(module, (torch.zeros(1, 3, 10, 14),), file, input_names=["x"], dynamo=False, opset_version=13)
    if is_open:
        model = onnx.load(file)
        for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
            dim.dim_param = name
        onnx.save(model, file)
    result = _export(file, image_size=(10, 14)) if is_open else _export(file)
    x_BCHW = np.random.default_rng(0).standard_normal((3, 3, 10, 14)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x_BCHW)).numpy()
    with Classifier.load(result.path) as classifier:
        assert classifier.contract.input_shape == (3, 10, 14)
        np.testing.assert_allclose(classifier.logits(x_BCHW), expected, rtol=0, atol=1e-5)
    contract = {"image_size": [10, 14], "output": "logits"}
    with Classifier.load(file, contract=contract) as lone, Classifier.load(result.path) as classifier:
        photo = np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)
        alone, bundled = (found.predict(photo)[0] for found in (lone, classifier))
        assert alone.index == bundled.index
        assert alone.score == pytest.approx(bundled.score, abs=1e-5)
    if not is_open:
        with pytest.raises(EdgeportError, match=r"--image-size is 8, but net\.onnx takes x \(1, 3, 10, 14\)"):
            _export(file, image_size=8, force=True)


def test_images_as_reference_prove_the_preprocessing_too(tmp_path: Path) -> None:
    file, reference = write_net(tmp_path / "net.onnx"), tmp_path / "reference.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    x_BCHW = ((pixels / np.float32(255) - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    np.savez(reference, images=pixels, outputs=own_answers(file, x_BCHW))
    _export(file, reference=reference, mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(ParityError, match="stage reference"):
        _export(file, reference=reference, mean=(0.4,) * 3, std=(0.25,) * 3, force=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"outputs": np.zeros((2, 5))}, "not outputs and one of inputs or images"),
        ({"inputs": np.zeros((2, 3, 4, 4)), "outputs": np.zeros((2, 5))}, "is not what the model takes"),
        (
            {"inputs": np.zeros((2, 3, 8, 8)), "outputs": np.zeros((2, 4))},
            r"outputs has the shape \(2, 4\), not \(2, 5",
        ),
        ({"images": np.zeros((2, 8, 8, 3)), "outputs": np.zeros((2, 5))}, "images is float64"),
        ({"inputs": np.array([{}], object), "outputs": np.zeros((1, 5))}, "is not an .npz of plain arrays"),
    ],
)
def test_a_reference_of_other_arrays_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(InputError, match=message):
        _export(write_net(tmp_path / "net.onnx"), reference=tmp_path / "reference.npz")


@pytest.mark.parametrize("is_input", [True, False])
def test_float16_is_computed_in_float32_and_compared_with_itself(is_input: bool, tmp_path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    file = write_net(tmp_path / "net.onnx")
    half = convert_float_to_float16(onnx.load(file), keep_io_types=not is_input)
    file.write_bytes(half.SerializeToString())
    result = _export(file)
    assert [stage.stage for stage in result.parity.stages][:2] == ["float16", "adapted"]
    model = onnx.load(result.path / "model.fp32.onnx")
    assert {tensor.data_type for tensor in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    x_BCHW = _images(3)
    own = own_answers(file, x_BCHW.astype(np.float16) if is_input else x_BCHW).astype(np.float32)
    with Classifier.load(result.path) as classifier:
        # float16 has 11 bits: measured 4e-4 of the largest.
        np.testing.assert_allclose(classifier.logits(x_BCHW), own, rtol=0, atol=2e-3 * np.abs(own).max())


def test_pixels_as_uint8_reach_the_file_as_they_are(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", kind=TensorProto.UINT8, layout="nhwc")
    result = _export(file)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    with Classifier.load(result.path) as classifier:
        assert classifier.contract.preprocess.scale == "byte"
        for image, own in zip(pixels, own_answers(file, pixels), strict=True):
            (outputs,) = list(classifier.iter_outputs([image]))
            np.testing.assert_allclose(outputs, own, rtol=0, atol=2e-6 * np.abs(own).max())
    with pytest.raises(InputError, match=r"net\.onnx takes pixels as uint8 and normalizes them itself; omit --scale"):
        _export(file, mean=(0.5,) * 3, force=True)


@pytest.mark.parametrize(("ending", "task"), [("Softmax", "multiclass"), ("Sigmoid", "multilabel")])
def test_probabilities_are_taken_as_such(ending: str, task: Any, tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", ending=(ending,))
    result = _export(file, task=task)
    assert result.manifest.contract.output == "probabilities"
    assert any("gives probabilities already" in note for note in result.notes)
    if ending == "Sigmoid":
        with pytest.raises(InputError, match=r"add --task multilabel .* otherwise take the sigmoid out of the file"):
            _export(file, force=True)


def test_logits_become_probabilities_where_that_is_asked_for(tmp_path: Path) -> None:
    result = _export(write_net(tmp_path / "net.onnx"), activation="in-graph", batch=2)
    with Classifier.load(result.path) as classifier:
        np.testing.assert_allclose(classifier.outputs(_images(4)).sum(axis=1), 1, rtol=1e-6)
    assert result.manifest.contract.batch == 2


def _with_constant_row(model: onnx.ModelProto) -> None:
    """A constant of one row is joined to the features, as the class token of a ViT is."""
    graph = model.graph
    last = graph.node[-1]
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 4), np.float32), "token"))
    node = helper.make_node("Concat", [last.output[0], "token"], ["joined"], axis=1)
    graph.node.append(node)
    graph.output[0].name = "joined"


def _with_a_shape_elsewhere(model: onnx.ModelProto) -> None:
    """The batch stands in the second axis of a shape, as where the axes are in another order inside."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([NUM_CLASSES, 1], np.int64), "turned_shape"))
    graph.node.append(helper.make_node("Transpose", [graph.output[0].name], ["turned"], perm=[1, 0]))
    graph.node.append(helper.make_node("Reshape", ["turned", "turned_shape"], ["shaped"]))
    graph.node.append(helper.make_node("Transpose", ["shaped"], ["back"], perm=[1, 0]))
    graph.output[0].name = "back"


def test_a_constant_that_is_joined_to_an_image_is_joined_to_each(tmp_path: Path) -> None:
    file = alter(write_net(tmp_path / "net.onnx", batch=1), _with_constant_row)
    result = _export(file)
    assert result.manifest.contract.batch is None
    x_BCHW = _images(3)
    with Classifier.load(result.path) as classifier:
        np.testing.assert_allclose(classifier.logits(x_BCHW), own_answers(file, x_BCHW), rtol=0, atol=1e-5)


def test_a_batch_that_constants_hold_stays_and_is_told(tmp_path: Path) -> None:
    file = alter(write_net(tmp_path / "net.onnx", batch=1), _with_a_shape_elsewhere)
    result = _export(file)
    assert result.manifest.contract.batch == 1
    assert any("takes 1 image at once and no other number, which its constants hold" in note for note in result.notes)
    with Classifier.load(result.path) as classifier:
        assert classifier.logits(_images(3)).shape == (3, NUM_CLASSES)
    with pytest.raises(InputError, match=r"--batch is 2, but net\.onnx takes 1 at once"):
        _export(file, batch=2, force=True)


def _quantize(file: Path, how: str) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter([{"pixels": image[np.newaxis]} for image in _images(4)])

        def get_next(self) -> Any:
            return next(self._batches, None)

    target = file.with_name("quantized.onnx")
    if how == "dynamic":
        quantize_dynamic(str(file), str(target))
    else:
        quantize_static(str(file), str(target), Reader(), quant_format=QuantFormat[how])
    return target


@pytest.mark.parametrize(("how", "scheme"), [("QDQ", "static"), ("QOperator", "static"), ("dynamic", "dynamic")])
def test_a_quantized_file_is_bundled_as_it_is(how: str, scheme: str, tmp_path: Path) -> None:
    file = _quantize(write_net(tmp_path / "net.onnx", batch=1 if how == "QDQ" else "N"), how)
    result = _export(file, quantize=None)
    (variant,) = result.manifest.variants
    assert (variant.name, variant.precision, variant.opset) == ("int8", "int8", 13)
    assert variant.quantization is not None
    assert (variant.quantization["scheme"], variant.quantization["num_layers"]) == (scheme, 2)
    theirs, ours = (sorted(n.op_type for n in onnx.load(f).graph.node) for f in (file, result.path / variant.file))
    assert theirs == ours
    assert result.manifest.contract.batch is None
    with Classifier.load(result.path) as classifier:
        assert classifier.variant == variant
        assert len(classifier.predict_batch([np.zeros((9, 9, 3), np.uint8)] * 2)) == 2
    with pytest.raises(
        InputError, match=r"quantized\.onnx is quantized already, and is bundled as it is; omit --quant"
    ):
        _export(file, quantize=("int8",), force=True)


def test_weights_alone_in_int8_are_called_that(tmp_path: Path) -> None:
    def store(model: onnx.ModelProto) -> None:
        graph = model.graph
        (head,) = (tensor for tensor in graph.initializer if tensor.name == "head")
        scale = np.abs(numpy_helper.to_array(head)).max() / 127
        stored = np.round(numpy_helper.to_array(head) / scale).astype(np.int8)
        head.CopyFrom(numpy_helper.from_array(stored, "stored"))
        graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale_of_head"))
        graph.node.insert(0, helper.make_node("DequantizeLinear", ["stored", "scale_of_head"], ["head"]))

    result = _export(alter(write_net(tmp_path / "net.onnx"), store))
    (variant,) = result.manifest.variants
    assert (variant.name, variant.precision) == ("int8-weights", "int8 weights, float32")


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({"size": None}, {}, r"--image-size is missing; net\.onnx takes pixels \(N, 3, \?, \?\), images of any size"),
        ({}, {"image_size": 9}, r"--image-size is 9, but net\.onnx takes pixels \(N, 3, 8, 8\)"),
        ({"channels": 4}, {}, "EdgePort prepares images with 1 or 3 channels"),
        ({}, {"input_layout": "nhwc"}, "8 channels as nhwc, .*; is --input-layout right"),
        ({}, {"input_name": "image"}, r"--input-name is image, but net\.onnx takes pixels"),
        ({"others": ("features",)}, {}, "several could be the classes; choose with --output-name NAME"),
        ({"others": ("features",)}, {"output_name": "x"}, r"--output-name is x, but net\.onnx gives"),
        ({}, {"num_classes": 7}, "--num-classes is 7, but net.onnx gives 5"),
        ({}, {"task": "binary"}, r"net\.onnx gives 5 logits, but a binary task has one"),
        ({}, {"weights": "digits"}, "--weights does not apply to an .onnx file"),
        ({}, {"color": "grey", "channels": None}, r"net\.onnx takes 3 channels of 8 pixels, but the options"),
        ({"opset": 6}, {}, "has opset 6, and EdgePort takes 7 and later"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(
    options: dict[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_net(tmp_path / "net.onnx", **options)
    with pytest.raises(EdgeportError, match=message) as caught:
        _export(file, **config)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Mul", [model.graph.output[0].name, "flag"], ["scaled"]))
    model.graph.output[0].name = "scaled"


def _of_pixels(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = next(node for node in model.graph.node if node.op_type == "MaxPool").output[0]


def _decided(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("ArgMax", [model.graph.output[0].name], ["best"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", TensorProto.INT64, None))


def _huge(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "huge"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", [model.graph.output[0].name, "sum"], ["more"]))
    model.graph.output[0].name = "more"


def _unknown(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="my.company", version=1)
    model.graph.node[1].domain = "my.company"


def _lies(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**40


def _waits(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


def _random(model: onnx.ModelProto) -> None:
    node = helper.make_node("RandomUniformLike", [model.graph.output[0].name], ["noise"])
    model.graph.node.extend([node, helper.make_node("Add", [model.graph.output[0].name, "noise"], ["noisy"])])
    model.graph.output[0].name = "noisy"


def _over_batch(model: onnx.ModelProto) -> None:
    last = model.graph.output[0].name
    model.graph.node.append(helper.make_node("ReduceMean", [last], ["mean"], axes=[0]))
    model.graph.node.append(helper.make_node("Sub", [last, "mean"], ["shared"]))
    model.graph.output[0].name = "shared"


def _ends_in(*operators: str) -> Callable[[onnx.ModelProto], None]:
    """With those behind the output; ``Zero`` is a product with 0."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        model.graph.initializer.append(numpy_helper.from_array(np.arange(NUM_CLASSES, dtype=np.float32), "ramp"))
        for operator in operators:
            value, name = model.graph.output[0].name, f"after_{operator}"
            kind, *more = {"Zero": ("Mul", "zero"), "Ramp": ("Add", "ramp")}.get(operator, (operator,))
            model.graph.node.append(helper.make_node(kind, [value, *more], [name]))
            model.graph.output[0].name = name

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_two_inputs, r"takes pixels \(N, 3, 8, 8\), flag \(1\), and EdgePort gives one tensor of images"),
        (_of_pixels, r"is no image classifier: for 1 image it gives v2 \(1, 8, 3, 3\), and no row of K scores"),
        (_decided, r"is no image classifier: .* best \(1, 1\) of int64"),
        (_huge, "the value zeros has 1,099,511,627,776 elements"),
        (_unknown, "ONNX Runtime .* does not run net.onnx: .*my.company"),
        (_lies, "is not a valid ONNX model"),
        (_waits, "is not a valid ONNX model: nodes of the graph wait for each other"),
        (_random, r"net\.onnx gives another answer at each call"),
        (_over_batch, r"the answer of net\.onnx to an image depends on the other images of its batch"),
        (_ends_in("Sqrt"), "stage reference: the file's own outputs are NaN or infinite"),
        (_ends_in("Zero"), "stage reference: the file's outputs are all equal"),
        (_ends_in("Zero", "Ramp"), "stage reference: the file gives the same outputs for every image"),
    ],
)
def test_a_file_that_is_no_classifier_or_damaged_is_refused_in_a_line(
    change: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    file = alter(write_net(tmp_path / "net.onnx"), change)
    with pytest.raises(EdgeportError, match=message) as caught:
        _export(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", b"\x08\x08" + b"\x00" * 64])
def test_what_is_no_onnx_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert export_model([str(tmp_path / "net.onnx"), "-o", str(tmp_path / "bundle")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not an ONNX model" in line


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", "which is outside of its folder"),
        ("/etc/passwd", "which is outside of its folder"),
        ("link.bin", "which is outside of its folder"),
        ("", "which is outside of its folder"),
        ("missing.bin", "lacks the file of its weights"),
        ("short.bin", "lie outside of short.bin, which has 3 bytes"),
    ],
)
def test_weights_outside_of_the_folder_are_not_read(location: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\x00" * 10**6)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(b"\x00" * 3)

    def move(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    with pytest.raises(InputError, match=message):
        _export(alter(write_net(folder / "net.onnx"), move))


def test_a_scale_tells_how_pixels_become_the_input(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx")
    told = "nothing tells how pixels become the input"
    for options, is_said in (({}, True), ({"scale": "byte"}, False)):
        config = ExportConfig(architecture=str(file), output=tmp_path / "bundle", **options)
        assert any(told in note for note in find_given(config).notes) == is_said


def test_a_file_that_edgeport_wrote_is_not_described_anew(tmp_path: Path) -> None:
    bundle = _export(write_net(tmp_path / "net.onnx"), mean=(0.5,) * 3).path
    with pytest.raises(EdgeportError, match=r"model\.fp32\.onnx was written by EdgePort, and its input would"):
        _export(bundle / "model.fp32.onnx", output=tmp_path / "again")


def test_options_for_files_are_for_files(tmp_path: Path) -> None:
    config = ExportConfig(architecture="lenet5", output=tmp_path / "bundle", input_layout="nhwc")
    from edgeport_export.source.subject import check_options

    with pytest.raises(InputError, match=r"--input-layout is for an \.onnx file, but lenet5 is none"):
        check_options(config)


def test_files_beside_tell_the_input_and_the_labels(tmp_path: Path) -> None:
    file = write_net(tmp_path / "net.onnx", size=None)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): f"class {i}" for i in range(NUM_CLASSES)}}))
    processor = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "resample": 3, **processor}))
    contract = _export(file).manifest.contract
    assert contract.labels == tuple(f"class {i}" for i in range(NUM_CLASSES))
    assert (contract.preprocess.mean, contract.preprocess.interpolation) == ((0.5,) * 3, "bicubic")


def test_a_stage_that_departs_from_the_file_is_caught_with_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_passes = simplify_module.run_passes

    def spoil(model: onnx.ModelProto) -> list[str]:
        for tensor in model.graph.initializer:
            if tensor.name == "bias":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.01), tensor.name))
        return run_passes(model)

    monkeypatch.setattr(simplify_module, "run_passes", spoil)
    with pytest.raises(ParityError, match=r"stage simplified departs from net\.onnx at node node_0 \(Conv\) on random"):
        _export(write_net(tmp_path / "net.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("fault", ["transpose", "cast", "batch"])
def test_wrong_ends_are_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is put before and behind the network is not in what it is compared with."""
    from edgeport_export.graph import adapt as module
    from edgeport_export.source import given_fit

    def spoiled(*args: Any, **options: Any) -> onnx.ModelProto:
        model = adapt(*args, **options)
        graph = model.graph
        if fault == "transpose":
            for node in graph.node:
                node.input[:] = ["turned" if name == "image" else name for name in node.input]
            graph.node.insert(0, helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 1, 3, 2]))
        elif fault == "cast":
            for node in graph.node:
                node.input[:] = ["rounded" if name == "image" else name for name in node.input]
            graph.node.insert(0, helper.make_node("Floor", ["image"], ["rounded"]))
        else:
            graph.node[-1].output[0] = "whole"
            graph.node.append(helper.make_node("ReduceMean", ["whole"], ["mean"], axes=[0], keepdims=1))
            graph.node.append(helper.make_node("Add", ["whole", "mean"], ["logits"]))
        return model

    adapt = module.adapt
    monkeypatch.setattr(given_fit, "adapt", spoiled)
    with pytest.raises(EdgeportError, match=r"net\.onnx gives other answers behind EdgePort's input and output"):
        _export(write_net(tmp_path / "net.onnx"))
    monkeypatch.setattr(given_fit, "_is_same", lambda *_, **__: True)
    with pytest.raises(ParityError, match=r"stage adapted (departs|fails)|depends on the other images"):
        _export(write_net(tmp_path / "net.onnx"))


def _cancel(model: onnx.ModelProto) -> None:
    """Add a constant and take it away again, which costs float32 its last digits."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(300), "large"))
    for operator, made in (("Add", "more"), ("Sub", "less")):
        graph.node.append(helper.make_node(operator, [graph.output[0].name, "large"], [made]))
        graph.output[0].name = made


def _normalize(model: onnx.ModelProto) -> None:
    """Of this operator set onnx's reference implementation takes the statistics of its input."""
    graph = model.graph
    for name in ("norm_scale", "norm_shift", "norm_mean", "norm_var"):
        graph.initializer.append(numpy_helper.from_array(np.full(8, 0.5, np.float32), name))
    place = next(i for i, node in enumerate(graph.node) if node.op_type == "Relu")
    made = graph.node[place].output[0]
    for node in graph.node:
        node.input[:] = ["normalized" if name == made else name for name in node.input]
    names = [made, "norm_scale", "norm_shift", "norm_mean", "norm_var"]
    graph.node.insert(place + 1, helper.make_node("BatchNormalization", names, ["normalized"], momentum=0.9))


def test_how_exact_the_files_own_float32_is(tmp_path: Path) -> None:
    x_BCHW = _images(3)

    def own_distance(file: Path) -> float:
        original = find_given(ExportConfig(architecture=str(file), output=tmp_path / "bundle")).original
        (exact_BK,) = original.run_in_float64([x_BCHW])
        assert exact_BK.dtype == np.float64
        return float(relative_l2(original.run(x_BCHW), exact_BK).max())

    assert own_distance(write_net(tmp_path / "net.onnx")) < 1e-6  # measured: 3.2e-7
    assert own_distance(alter(write_net(tmp_path / "cancels.onnx"), _cancel)) > 1e-6  # measured: 5.1e-6
    with pytest.raises(RuntimeError, match="computes something else"):
        own_distance(alter(write_net(tmp_path / "normalizes.onnx", opset=9), _normalize))


def test_damage_is_never_a_traceback(tmp_path: Path) -> None:
    content = write_net(tmp_path / "net.onnx").read_bytes()
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(40):
        damaged = bytearray(content)
        for place in generator.integers(0, 600, 2):  # the graph comes first, the weights are long
            damaged[place] = generator.integers(0, 256)
        (tmp_path / "net.onnx").write_bytes(bytes(damaged))
        try:
            find_given(ExportConfig(architecture=str(tmp_path / "net.onnx"), output=tmp_path / "bundle"))
            outcomes.add("taken")
        except EdgeportError as error:
            outcomes.add("refused in a line" if "\n" not in str(error) else str(error))
    assert outcomes == {"taken", "refused in a line"}
