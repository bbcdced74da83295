"""The command run-model heatmap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from edgeport_runtime.commands.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_export import ExportResult


def images(bundle: ExportResult, num: int) -> list[str]:
    return [str(bundle.path / image.file) for image in bundle.manifest.golden.images[:num]]


def test_one_image(lenet5: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = images(lenet5, 1)
    picture = tmp_path / "heat.png"
    assert main(["heatmap", str(lenet5.path), image, "-o", str(picture)]) == 0
    told = capsys.readouterr().out
    assert f"wrote {picture}, 14x14 by occlusion (the model was exported without --evidence)" in told
    assert told.endswith("by fp32 on cpu; its weights are random: these answers mean nothing\n")
    with Image.open(picture) as opened:
        assert min(opened.size) > 256


def test_several_images_as_json(lenet5: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["heatmap", str(lenet5.path), *images(lenet5, 2), str(tmp_path / "absent.png"), "--json"]
    assert main([*words, "--label", "3", "-o", str(tmp_path / "heat.png")]) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert (first["index"], second["index"]) == (3, 3)
    assert [first["file"], second["file"]] == [str(tmp_path / f"heat-{i}.png") for i in (1, 2)]
    assert all((tmp_path / f"heat-{i}.png").is_file() for i in (1, 2))
    assert set(third) == {"image", "error"}
    assert "absent.png" in third["error"]
    assert (len(first["map"]), len(first["map"][0])) == (14, 14)
    assert first["size"][0] == first["box"][3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the picture to write with -o heat.png, or --json"),
        (("-o", "heat.txt"), "heat.txt does not end like a picture"),
        (("-o", "absent/heat.png"), "the folder of absent/heat.png does not exist"),
        (("--label", "cat", "--json"), "no class is called 'cat'"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    words: tuple[str, ...], message: str, lenet5: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["heatmap", str(lenet5.path), *images(lenet5, 1), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_image_before_the_bundle(lenet5: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = images(lenet5, 1)
    assert main(["heatmap", image, str(lenet5.path), "--json"]) == 1
    assert f"comes first: run-model heatmap {lenet5.path} {image}" in capsys.readouterr().err
