"""Folders and tables as people have them: which name is which class, measured with trained weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from contracts import make_contract
from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import read_checkpoint
from edgeport_runtime import Classifier, InputError
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.accuracy.evaluate import evaluate
from edgeport_runtime.accuracy.matching import match_names
from edgeport_runtime.commands.cli import main
from training.data import digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_export import ExportResult

NUM_A_CLASS = 10
TOP1 = 0.93  # of resnet20 on the first ten test images of each class


@pytest.fixture
def some(shared: Callable[[str], Path], tmp_path: Path) -> Callable[[Callable[[str], str]], Path]:
    """Ten CIFAR-10 test images of each class, in folders whose names are made of the class's."""

    def copy(name: Callable[[str], str]) -> Path:
        for folder in sorted(shared("data/cifar10/test").iterdir()):
            target = tmp_path / "data" / name(folder.name)
            target.mkdir(parents=True)
            for image in sorted(folder.iterdir())[:NUM_A_CLASS]:
                shutil.copy(image, target)
        return tmp_path / "data"

    return copy


def test_case_does_not_matter(resnet20: ExportResult, some: Callable[[Callable[[str], str]], Path]) -> None:
    with Classifier.load(resnet20.path, variant="fp32") as classifier:
        result: Any = evaluate(classifier, some(str.capitalize))
    assert (result.top1, result.matched_by, result.num_images) == (TOP1, "name", 100)


def test_dog_and_cat_are_not_exchanged() -> None:
    """Labels `dog, cat`, folders `Cat, Dog`: sorted order would take each for the other."""
    matching = match_names(["Cat", "Dog"], make_contract("binary", labels=("dog", "cat")))
    assert matching == ("name", {"Cat": 1, "Dog": 0}, {})


def test_accents_as_macos_writes_them_are_the_same_name() -> None:
    matching = match_names(["cafe\u0301", "DOG"], make_contract("binary", labels=("dog", "caf\u00e9")))
    assert matching == ("name", {"cafe\u0301": 1, "DOG": 0}, {})


def test_the_right_order_must_be_asked_for(
    resnet20: ExportResult, some: Callable[[Callable[[str], str]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = some(lambda name: f"n{name}")
    assert main(["evaluate", str(resnet20.path), "--data", str(data)]) == 1
    assert "or give --match order if they are the classes in sorted order\n" in capsys.readouterr().err
    assert main(["evaluate", str(resnet20.path), "--data", str(data), "--match", "order", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["top1"], result["matched_by"]) == (TOP1, "sorted order")


class _Eleven(torch.nn.Module):
    """The digits, where the class after 0 is one that never comes."""

    def __init__(self, digits: torch.nn.Module) -> None:
        super().__init__()
        self.digits = digits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.digits(x)
        return torch.cat([logits[:, :1], logits[:, :1] - 50, logits[:, 1:]], dim=1)


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = ARCHITECTURES["lenet5"]
    module = spec.build()
    read_checkpoint("digits", architecture="lenet5").fill(module, spec=spec, image_size=32, add_channels=False)
    config = ExportConfig(
        output=tmp_path_factory.mktemp("eleven") / "bundle",
        image_size=32,
        color="grey",
        resize="exact",
        mean=spec.preprocess.mean,
        std=spec.preprocess.std,
        quantize=(),
    )
    return export(_Eleven(module), config).path


def test_eleven_numbers_are_no_text(eleven: Path, tmp_path: Path) -> None:
    """Folders 0 to 10: sorted as text, 10 would be the third class."""
    found = digits()
    for i, (pixels, target) in enumerate(zip(found["x_test"], found["y_test"], strict=True)):
        folder = tmp_path / str(target + (target > 0))
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "1").mkdir()
    Image.fromarray(found["x_test"][0]).save(tmp_path / "1" / "odd.png")
    with Classifier.load(eleven) as classifier:
        by_number: Any = evaluate(classifier, tmp_path)
        by_order: Any = evaluate(classifier, tmp_path, match="order")
    assert (by_number.matched_by, by_number.num_correct) == ("number", 358)
    assert (by_order.matched_by, by_order.num_correct) == ("sorted order", 36)


def test_a_label_of_two_classes_goes_by_number(tmp_path: Path) -> None:
    contract = make_contract("multiclass", 4, labels=("crane", "owl", "crane", "Cat"))
    for name in ("crane", "owl"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    problem = "'crane' is the label of the classes 0 and 2; use the number of the one that is meant"
    with pytest.raises(InputError, match=problem):
        read_labelled_images(tmp_path, contract)
    (tmp_path / "crane").rename(tmp_path / "2")
    images = read_labelled_images(tmp_path, contract)
    assert (images.folders, images.targets.tolist()) == ((("2", 2), ("owl", 1)), [2, 1])
    table = tmp_path / "labels.csv"
    table.write_text("path,labels\n2/a.png,2\nowl/a.png,OWL\n")
    assert read_labelled_images(table, contract).targets.tolist() == [2, 1]
    table.write_text("path,labels\nowl/a.png,owl\n2/a.png,crane\n")
    with pytest.raises(InputError, match=f"line 3: {problem}"):
        read_labelled_images(table, contract)
    with pytest.raises(InputError, match=r"--match order is for one folder per class; .*labels\.csv is no folder"):
        read_labelled_images(table, contract, match="order")


def test_names_without_labels_are_not_guessed() -> None:
    matching = match_names(["cat", "dog"], make_contract("binary"))
    assert matching.problems["cat"] == "'cat' is no number of a class, and the model has no labels"
    assert match_names(["1", "0"], make_contract("binary")) == ("number", {"1": 1, "0": 0}, {})
    both = make_contract("binary", labels=("Crane", "crane"))
    assert match_names(["crane", "Crane"], both).classes == {"crane": 1, "Crane": 0}
    assert match_names(["CRANE", "0"], both).classes == {"0": 0}


def test_a_table_that_excel_wrote(
    resnet20: ExportResult, some: Callable[[Callable[[str], str]], Path], tmp_path: Path
) -> None:
    data = some(str.lower)
    rows = [f"{data.name}\\{p.parent.name}\\{p.name};{p.parent.name.upper()};" for p in sorted(data.rglob("*.png"))]
    table = tmp_path / "table.csv"
    table.write_bytes(("\r\n".join(["Path;Labels;Note", *rows, ";;"]) + "\r\n").encode("utf-8-sig"))
    with Classifier.load(resnet20.path, variant="fp32") as classifier:
        result: Any = evaluate(classifier, table)
        assert (result.top1, result.num_images) == (TOP1, 100)
        table.write_bytes("\r\n".join(["path;labels", "a.png;cat;dog"]).encode("utf-8-sig"))
        with pytest.raises(InputError, match=r'line 2: more values than columns; write several labels as "cat;dog"'):
            evaluate(classifier, table)
    table.write_bytes('path;labels\r\na.png;"b;a"\r\nb.png;\r\n'.encode("utf-8-sig"))
    contract = replace(make_contract("multilabel", 2), labels=("a", "b"))
    assert read_labelled_images(table, contract).targets.tolist() == [[1, 1], [0, 0]]
