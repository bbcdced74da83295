"""`infer.py` of a bundle: no EdgePort, and to the bit what `Classifier.predict` gives."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from edgeport_export import ExportConfig, export
from edgeport_export.bundle.script import _constants
from edgeport_runtime import Classifier
from edgeport_runtime.pixels.decode import find_images
from edgeport_runtime.pixels.preprocess import preprocess
from task_models import NUM_OUTPUTS, TASKS, make_images, make_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from edgeport_export import ExportResult
    from edgeport_runtime.bundle.contract import Task


def _import(bundle: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("infer", bundle / "infer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _assert_same(bundle: Path, images: list[Path], *, variant: str = "fp32", top_k: int = 5) -> None:
    infer = _import(bundle)
    session = infer.load(variant)
    with Classifier.load(bundle, variant=variant, device="cpu") as classifier:
        for image in images:
            expected = [asdict(prediction) for prediction in classifier.predict(image, top_k)]
            assert infer.predict(session, image, top_k) == expected


@pytest.mark.slow
def test_photos_give_the_same_bits_in_every_variant(shared: Callable[[str], Path], tmp_path: Path) -> None:
    variants = ("int8", "fp16", "int8-weights")
    bundle = export(ExportConfig(architecture="vit_ti_16", output=tmp_path / "bundle", quantize=variants)).path
    images = find_images(shared("data/cats-dogs/test"))[::20] + find_images(shared("data/cifar10/test"))[::100]
    for name in ("fp32", *variants):
        _assert_same(bundle, images, variant=name)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("options", [{}, {"activation": "in-graph"}, {"batch": 3}])
def test_every_task_decides_the_same(task: Task, options: dict[str, Any], tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    names = ["no", 'it\'s "quoted"\\'] if task == "binary" else ["a", "b", "c", 'it\'s "quoted"\\']
    labels.write_text("\n".join(names) + "\n")
    config = ExportConfig(
        output=tmp_path / "bundle", task=task, labels=labels, image_size=32, color="grey", quantize=(), **options
    )
    bundle = export(make_module(task), config).path
    images = []
    for i, pixels in enumerate(make_images()[:12]):
        images.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(images[-1])
    _assert_same(bundle, images, top_k=NUM_OUTPUTS[task] + 1)


def _odd_images(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    turned = Image.Exif()
    files = []
    for orientation in range(1, 10):
        turned[0x0112] = orientation
        files.append(folder / f"turned{orientation}.jpg")
        colours.save(files[-1], exif=turned)
    for name, image in {
        "deep.png": Image.fromarray(rng.integers(0, 65536, (30, 20), dtype=np.uint16)),
        "palette.png": colours.convert("P"),
        "clear.png": colours.convert("RGBA"),
        "narrow.png": colours.resize((1, 30)),
        "bits.png": colours.convert("1"),
        "ink.jpg": colours.convert("CMYK"),
    }.items():
        files.append(folder / name)
        image.save(files[-1])
    twelve = rng.integers(0, 4096, (30, 20), dtype=np.uint16)
    said = PngImagePlugin.PngInfo()
    said.add(b"sBIT", bytes([12]))
    Image.fromarray(twelve).save(folder / "twelve.png", pnginfo=said)
    Image.fromarray(twelve << 4).save(folder / "scaled.png", pnginfo=said)
    Image.fromarray(twelve).save(folder / "twelve.tif", tiffinfo={341: 4095})
    (folder / "twelve.pgm").write_bytes(b"P5\n20 30\n4095\n" + twelve.astype(">u2").tobytes())
    (folder / "sixteen.pgm").write_bytes(b"P5\n20 30\n65535\n" + twelve.astype(">u2").tobytes())
    colours.save(folder / "colours.avif")
    files += [folder / name for name in ("twelve.png", "scaled.png", "twelve.tif", "twelve.pgm", "colours.avif")]
    files.append(folder / "sixteen.pgm")
    palette = colours.convert("P")
    palette.save(folder / "clear_palette.png", transparency=bytes(range(256)))
    return [*files, folder / "clear_palette.png"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resize": "exact", "interpolation": "bicubic", "color": "bgr"},
        {"resize": "exact", "interpolation": "nearest", "scale": "byte", "mean": (100.0,) * 3, "std": (50.0,) * 3},
        {"interpolation": "lanczos", "bits": 12},
    ],
)
@pytest.mark.filterwarnings("ignore::edgeport_runtime.ImageWarning")
def test_odd_images_and_other_contracts(options: dict[str, Any], tmp_path: Path) -> None:
    config = ExportConfig(architecture="resnet20", output=tmp_path / "bundle", quantize=(), **options)
    bundle, images = export(config).path, _odd_images(tmp_path)
    if "bits" in options:
        deep = images.pop(next(i for i, image in enumerate(images) if image.name == "deep.png"))
        done = _run(bundle, deep)
        assert (done.returncode, done.stdout) == (1, "")
        assert "which are more than 12 bits" in done.stderr
    _assert_same(bundle, images)


@pytest.mark.parametrize("interpolation", ["lanczos", "box", "hamming"])
def test_filters_of_a_contract(interpolation: Any, shared: Callable[[str], Path], lenet5: ExportResult) -> None:
    """The preprocessing alone: the very pixels of the runtime, without an export for each filter."""
    infer, spec = _import(lenet5.path), replace(lenet5.manifest.contract.preprocess, interpolation=interpolation)
    infer.INTERPOLATION = interpolation
    for photo in find_images(shared("data/cats-dogs/test"))[::10]:
        np.testing.assert_array_equal(infer.preprocess(photo)[0], preprocess(photo, spec))


@pytest.mark.parametrize(
    ("color", "geometry"),
    [
        ("la", {"resize_size": (24, 40), "image_size": (20, 33)}),
        ("grey", {"resize": "exact", "resize_size": (40, 24), "image_size": (33, 24)}),
        ("rgba", {"resize": "pad", "resize_size": 32, "image_size": 32}),
        ("bgr", {"resize": "pad", "resize_size": (24, 40), "image_size": (24, 40), "interpolation": "bicubic"}),
    ],
)
@pytest.mark.filterwarnings("ignore::edgeport_runtime.ImageWarning")
def test_shapes_padding_and_alpha_of_a_contract(
    color: Any, geometry: dict[str, Any], lenet5: ExportResult, tmp_path: Path
) -> None:
    """The preprocessing alone, with the constants that an export would write."""
    channels = {"bgr": 3, "grey": 1, "rgba": 4, "la": 2}[color]
    pad = {"pad_color": tuple(range(10, 10 + channels))} if geometry.get("resize") == "pad" else {}
    spec = replace(
        lenet5.manifest.contract.preprocess,
        color=color,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        **geometry,
        **pad,
    )
    infer = _import(lenet5.path)
    contract = replace(lenet5.manifest.contract, preprocess=spec)
    for name, value in _constants(replace(lenet5.manifest, contract=contract)).items():
        assert hasattr(infer, name)
        setattr(infer, name, value)
    for image in _odd_images(tmp_path):
        np.testing.assert_array_equal(infer.preprocess(image)[0], preprocess(image, spec))


@pytest.mark.parametrize("crop_offset", ["even", "down"])
def test_offsets_of_a_contract(crop_offset: Any, lenet5: ExportResult, tmp_path: Path) -> None:
    spec = replace(lenet5.manifest.contract.preprocess, resize_size=35, crop_offset=crop_offset)
    infer = _import(lenet5.path)
    infer.RESIZE_SIZE, infer.CROP_OFFSET = 35, crop_offset
    pixels = np.random.default_rng(0).integers(0, 256, (35, 37, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    np.testing.assert_array_equal(infer.preprocess(tmp_path / "odd.png")[0], preprocess(tmp_path / "odd.png", spec))


def _run(bundle: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(bundle / "infer.py"), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_needs_nothing_of_ours(resnet20: ExportResult, tmp_path: Path) -> None:
    image = resnet20.path / resnet20.manifest.golden.images[0].file
    with Classifier.load(resnet20.path, variant="fp32", device="cpu") as classifier:
        expected = [asdict(prediction) for prediction in classifier.predict(image, 3)]
    done = _run(resnet20.path, image, "--top-k", 3, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{"image": str(image), "predictions": expected}]
    assert expected[0]["label"] in _run(resnet20.path, image).stdout.splitlines()[0]
    probe = (
        f"import sys; sys.path.insert(0, {str(resnet20.path)!r})\n"
        f"import infer; infer.predict(infer.load(), {str(image)!r})\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'edgeport_runtime', 'torch', 'onnx', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_ends_it_in_silence(lenet5: ExportResult) -> None:
    image = lenet5.path / lenet5.manifest.golden.images[0].file
    command = [sys.executable, "-I", str(lenet5.path / "infer.py"), *[str(image)] * 20]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, b"")


def test_it_is_small_in_memory(lenet5: ExportResult) -> None:
    """Numpy, Pillow and ONNX Runtime themselves are nearly all of it."""
    image = lenet5.path / lenet5.manifest.golden.images[0].file
    probe = (
        f"import sys; sys.path.insert(0, {str(lenet5.path)!r})\n"
        f"import infer; infer.predict(infer.load(), {str(image)!r})\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80_000


def test_a_bad_image_costs_the_others_nothing(resnet20: ExportResult, tmp_path: Path) -> None:
    good = resnet20.path / resnet20.manifest.golden.images[0].file
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:200])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    names = ("none.png", "empty.png", "cut.png", "bomb.png")
    done = _run(resnet20.path, *(tmp_path / name for name in names), good, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert ["error" in entry for entry in told] == [True, True, True, True, False]
    for name, line in zip(names, done.stderr.splitlines(), strict=True):
        assert line.startswith(f"error: {tmp_path / name}: ")


def test_an_altered_model_is_refused(lenet5: ExportResult, tmp_path: Path) -> None:
    bundle = shutil.copytree(lenet5.path, tmp_path / "bundle")
    model = bundle / "model.fp32.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"model\.fp32\.onnx is not the file that was exported"):
        _import(bundle).load()


def test_a_command_tells_an_altered_model_in_a_line(lenet5: ExportResult, tmp_path: Path) -> None:
    bundle = shutil.copytree(lenet5.path, tmp_path / "bundle")
    image = bundle / lenet5.manifest.golden.images[0].file
    (bundle / "model.fp32.onnx").write_bytes(b"cut")
    done = _run(bundle, image)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: model.fp32.onnx is not the file that was exported")
    (bundle / "model.fp32.onnx").unlink()
    assert len(_run(bundle, image).stderr.splitlines()) == 1


def test_arrays_and_pillows_images_give_what_the_runtime_gives(
    lenet5: ExportResult, resnet20: ExportResult, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 60, 3), (30, 20), (25, 35, 1), (9, 9, 4))]
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(arrays[0]).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(rng.integers(0, 65536, (30, 20), dtype=np.uint16)).save(tmp_path / "deep.png")
    for bundle in (lenet5.path, resnet20.path):
        infer = _import(bundle)
        session = infer.load()
        with Classifier.load(bundle, variant="fp32", device="cpu") as classifier, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, array in enumerate(arrays):
                expected = [asdict(prediction) for prediction in classifier.predict(array)]
                np.save(tmp_path / f"{i}.npy", array)
                assert infer.predict(session, array) == expected
                assert infer.predict(session, tmp_path / f"{i}.npy") == expected
            for name in ("turned.jpg", "deep.png"):
                with Image.open(tmp_path / name) as image:
                    expected = [asdict(prediction) for prediction in classifier.predict(image)]
                    assert infer.predict(session, image) == expected
                    assert image.getpixel((0, 0)) is not None  # it stays open
    done = _run(lenet5.path, tmp_path / "0.npy")
    assert (done.returncode, done.stderr) == (0, "")


def test_arrays_that_are_no_images(lenet5: ExportResult, tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((9, 9, 3)))
    np.save(tmp_path / "channels.npy", np.zeros((3, 9, 9), np.uint8))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "empty.npy").write_bytes(b"")
    huge = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 3)}
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, huge)
    names = ("floats", "channels", "objects", "empty", "huge")
    done = _run(lenet5.path, *(tmp_path / f"{name}.npy" for name in names))
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert [line.partition(".npy: ")[0].rpartition("/")[2] for line in lines] == list(names)
    assert "it must be uint8" in lines[0]
    assert "it must be (height, width, channels)" in lines[1]


@pytest.mark.parametrize("module", ["onnxruntime", "PIL", "numpy"])
def test_what_is_not_installed_is_said_in_a_line(module: str, lenet5: ExportResult) -> None:
    code = (
        f"import runpy, sys; sys.modules[{module!r}] = None; script = sys.argv[1]; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(script, run_name='__main__')"
    )
    image = lenet5.path / lenet5.manifest.golden.images[0].file
    command = [sys.executable, "-I", "-c", code, str(lenet5.path / "infer.py"), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {module} is not installed: pip install ")
    assert len(done.stderr.splitlines()) == 1
