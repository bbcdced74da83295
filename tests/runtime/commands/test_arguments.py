"""The arguments of both commands: what a first user, or one with a typing error, is told; and every example runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edgeport_export.cli import main as export_main
from edgeport_export.parser import make_parser as export_parser
from edgeport_runtime import Classifier
from edgeport_runtime.commands.cli import main as run_main
from edgeport_runtime.commands.parser import make_parser as run_parser
from hub_server import TOKEN, Hub, environment, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeport_runtime.commands.arguments import Parser

MAINS = {"export-model": export_main, "run-model": run_main}
NET = """
import torch

def make(num_classes=3):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                               torch.nn.Linear(4 * 30 * 30, num_classes))
"""


def _parsers() -> dict[str, Parser]:
    export, run = export_parser(), run_parser()
    return {export.prog: export, run.prog: run} | {parser.prog: parser for parser in run._commands.values()}


@pytest.fixture(scope="module")
def workplace(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with what the examples speak of."""

    def make(folder: Path) -> None:
        digits = load_digits()
        for i, (pixels, label) in enumerate(zip(digits.images[:60], digits.target[:60], strict=True)):
            (folder / "photos" / str(label)).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((28, 28))
            image.save(folder / "photos" / str(label) / f"{i}.png")
        image.save(folder / "digit.png")
        (folder / "net.py").write_text(NET)
        names: dict[str, object] = {}
        exec(NET, names)
        torch.manual_seed(0)
        torch.save(names["make"]().state_dict(), folder / "net.pth")  # type: ignore[operator]
        (folder / "labels.txt").write_text("cat\ndog\nowl\n")
        argv = ["lenet5", "--weights", "digits", "-o", str(folder / "build" / "digits"), "--preprocess", "in-graph"]
        assert export_main([*argv, "--quantize", "int8", "--scheme", "dynamic", "--quiet"]) == 0

    return once("workplace", make)


@pytest.mark.parametrize(
    "example", [example for name, parser in _parsers().items() if name != "run-model" for example in parser.examples]
)
def test_every_example_runs(
    example: str,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    peer: Callable[[str], Path],
) -> None:
    for path in workplace.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPORT_CACHE", str(tmp_path / "cache"))
    program, *argv = shlex.split(example)
    if argv[0] == "web":
        argv += ["--onnxruntime-web", str(peer("npm") / "node_modules" / "onnxruntime-web")]
    if argv[0] == "push":  # in a process of its own, which knows no other hub
        with serve(Hub({}, repository="OWNER/NAME")) as hub:
            env = environment(hub, tmp_path, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
            subprocess.run([sys.executable, "-m", "edgeport_runtime", *argv], env=env, check=True)
        assert "README.md" in hub.files
        return
    if program == "export-model":
        argv = [word.replace("build/", "made/") for word in argv]  # the other one is there already
    assert MAINS[program](argv) == 0
    assert capsys.readouterr().out


def test_every_command_has_two_examples_in_its_help() -> None:
    for name, parser in _parsers().items():
        assert len(parser.examples) == 2, name
        assert parser.format_help().endswith("\n".join(f"  {example}" for example in parser.examples) + "\n")


@pytest.mark.parametrize(
    ("program", "line", "messages"),
    [
        (
            "run-model",
            "",
            ["run-model predict BUNDLE photo.jpg", "run-model evaluate BUNDLE", "run-model verify BUNDLE"],
        ),
        ("export-model", "", ["export-model vit -o", "--weights best.pth", "net.py:make"]),
        ("run-model", "predcit b x.png", ["'predcit' is unknown; did you mean predict?"]),
        ("run-model", "zzz", ["'zzz' is unknown; choose from predict, evaluate, "]),
        (
            "run-model",
            "predict b x.png --topk 3",
            ["unknown: --topk; did you mean --top-k?", "usage: run-model predict"],
        ),
        ("export-model", "lenet5 --wieghts x -o b", ["unknown: --wieghts; did you mean --weights?"]),
        ("export-model", "lenet5 -o b --resize shortr", ["'shortr' is unknown; did you mean shorter?"]),
        ("run-model", "tune", ["arguments are required: BUNDLE", "usage: run-model tune BUNDLE"]),
    ],
)
def test_a_wrong_line_is_answered_in_a_few(
    program: str, line: str, messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        MAINS[program](line.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(message in err for message in messages)
    assert len(err.splitlines()) <= (8 if not line else 2)


@pytest.mark.parametrize("name", [name for name in _parsers() if name != "run-model"])
def test_every_command_has_json(name: str) -> None:
    flags = [flag for action in _parsers()[name]._actions for flag in action.option_strings]
    assert "--json" in flags


def test_the_versions_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for main in MAINS.values():
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        told = dict(entry.split(" ") for entry in capsys.readouterr().out.strip().split(", "))
        assert told["torch"] == torch.__version__
        assert {"edgeport", "onnxruntime"} <= set(told)


@pytest.mark.parametrize("module", ["edgeport_export", "edgeport_runtime"])
def test_modules_are_commands(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("edgeport ")


@pytest.mark.parametrize(
    ("line", "offered"),
    [("run-model pre", "predict"), ("run-model predict --to", "--top-k"), ("run-model ver", "verify")],
)
def test_a_shell_is_told_how_a_line_goes_on(line: str, offered: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    command = [sys.executable, "-m", "edgeport_runtime"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "offered").read_text().split() == [offered]


def test_an_image_before_the_bundle(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, image = workplace / "build" / "digits", workplace / "digit.png"
    assert run_main(["predict", str(image), str(bundle)]) == 1
    line = shlex.join(["run-model", "predict", str(bundle), str(image)])
    assert capsys.readouterr().err == f"error: {bundle} is the bundle, which comes first: {line}\n"


def test_quiet_and_verbose(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, photos = str(workplace / "build" / "digits"), tmp_path / "photos"
    photos.mkdir()
    Image.new("RGBA", (9, 9)).save(photos / "clear.png")
    (photos / "notes.txt").touch()
    assert run_main(["predict", bundle, str(photos)]) == 0
    told = capsys.readouterr().err
    assert "warning: " in told
    assert "note: " in told
    assert run_main(["predict", bundle, str(photos), "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert "clear.png" in quiet.out
    assert run_main(["predict", bundle, str(photos), "--verbose", "--device", "cpu", "--variant", "fp32"]) == 0
    assert capsys.readouterr().err.startswith("fp32 on cpu, executed in float32\n  cpu was requested\n")
    argv = ["lenet5", "--quantize", "none", "-o"]
    assert export_main([*argv, str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert Classifier.load(tmp_path / "quiet").contract.num_classes == 10
    assert export_main([*argv, str(tmp_path / "verbose"), "--verbose"]) == 0
    verbose = capsys.readouterr()
    assert " s  trace\n" in verbose.err
    assert "note: pass fuse_attention: " in verbose.out or "note: pass strip_metadata: changed" in verbose.out


def test_no_color_means_no_escapes_and_names_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"COLUMNS": "40", "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "edgeport_export", "--list"]
    bold = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    plain = subprocess.run(command, capture_output=True, text=True, check=True, env=environment | {"NO_COLOR": "1"})
    assert "\x1b[1m" in bold
    assert "\x1b" not in plain.stdout
    assert " googlenet_2014 " in plain.stdout
    assert "\u2026" not in plain.stdout
