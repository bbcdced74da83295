"""Train an architecture on labelled images, and write weights that export-model takes as they are.

    python tools/train.py lenet5 --data digits -o build/digits
    export-model lenet5 --weights build/digits -o build/lenet5
    python tools/train.py mynet.py:make --image-size 32 --data photos/ -o build/mine
    export-model mynet.py:make --weights build/mine -o build/bundle

--data is one folder per class, a CSV with the columns path,labels (several labels separated by ;), an .npz with x_train
and y_train (and x_test, y_test), or `digits`. The runtime preprocesses the images; augmentation follows. The epoch that
is best on a held-out part is kept as model.safetensors, with its labels and preprocessing beside it. metrics.json holds
the metrics on the test images, or on the held-out ones if there are none.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgeport_export.config import ExportConfig, Pooling, Positions, find_spec
from edgeport_export.source import user_module
from edgeport_export.source.resolve import resolve_preprocess
from edgeport_export.source.subject import OWN_INPUT, check_options
from edgeport_models.tasks import TASKS
from edgeport_runtime.commands.console import DONE, USAGE, run_command
from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import Resize, as_size
from training.data import load_data
from training.files import write_json, write_model
from training.loop import Settings, train
from training.metrics import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from edgeport_models import ModelSpec
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.pixels.preprocess import PreprocessSpec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "architecture",
        metavar="ARCH",
        help="Name of the architecture (export-model --list shows all), or your own module as file.py:factory.",
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="Folder per class, CSV, .npz, or digits.")
    parser.add_argument("--test", metavar="PATH", help="Folder or CSV to measure on at the end.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="Folder to write to.")
    parser.add_argument("--task", choices=TASKS, default="multiclass", help="Task to train (default multiclass).")
    parser.add_argument("--resume", action="store_true", help="Continue where the same command was interrupted.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    loop = parser.add_argument_group("training")
    loop.add_argument("--epochs", type=int, default=20, metavar="N", help="Passes over the images (default 20).")
    loop.add_argument("--batch-size", type=int, default=64, metavar="N", help="Images per step (default 64).")
    loop.add_argument("--lr", type=float, default=1e-3, metavar="F", help="Highest learning rate (default 0.001).")
    loop.add_argument("--weight-decay", type=float, default=0.05, metavar="F", help="AdamW's decay (default 0.05).")
    loop.add_argument(
        "--warm-up",
        type=float,
        default=0.1,
        metavar="F",
        help="Share of all steps over which the rate rises (default 0.1).",
    )
    loop.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        metavar="F",
        help="Share of the images that are held out to choose the best epoch by (default 0.1).",
    )
    loop.add_argument("--seed", type=int, default=0, metavar="N", help="Seed of everything random (default 0).")
    augmentation = parser.add_argument_group("augmentation, off by default")
    augmentation.add_argument("--rotate", type=float, default=0.0, metavar="DEG", help="Rotate by up to DEG degrees.")
    augmentation.add_argument("--zoom", type=float, default=0.0, metavar="F", help="Zoom by up to the fraction F.")
    augmentation.add_argument(
        "--shift", type=float, default=0.0, metavar="F", help="Shift by up to the fraction F of the side."
    )
    augmentation.add_argument("--flip", action="store_true", help="Mirror half of the images, left to right.")
    shape = parser.add_argument_group("network and input, as for export-model")
    shape.add_argument("--positions", choices=get_args(Positions))
    shape.add_argument("--pooling", choices=get_args(Pooling))
    shape.add_argument("--image-size", type=int, nargs="+", metavar="N")
    shape.add_argument("--channels", type=int, metavar="N")
    shape.add_argument("--mean", type=float, nargs="+", metavar="V")
    shape.add_argument("--std", type=float, nargs="+", metavar="V")
    shape.add_argument("--resize", choices=get_args(Resize))
    shape.add_argument("--crop-pct", type=float, metavar="P")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    for name, low in (("epochs", 1), ("batch_size", 1), ("lr", 0), ("weight_decay", 0), ("rotate", 0), ("shift", 0)):
        if not low <= getattr(args, name) < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least {low}")
    for name in ("warm_up", "held_out", "zoom"):
        if not 0 <= getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 0 and below 1")
    return Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})


class _Network(NamedTuple):
    """What is trained.

    Attributes:
        reference: as export-model takes it.
        name: as it stands in what is written.
        spec: the input.
        options: choices of the architecture.
        training_only: how the names of weights begin that are left out.
        build: makes it, from the contract of the data.
    """

    reference: str
    name: str
    spec: PreprocessSpec
    options: dict[str, Any]
    training_only: tuple[str, ...]
    build: Callable[[Contract], nn.Module]


def _configure(args: argparse.Namespace) -> tuple[Settings, _Network]:
    names = ("channels", "resize", "crop_pct", "seed", "output", "architecture", "positions", "pooling")
    tuples = {name: None if getattr(args, name) is None else tuple(getattr(args, name)) for name in ("mean", "std")}
    size = None if args.image_size is None else as_size(args.image_size[0], args.image_size[-1])
    config = ExportConfig(**{name: getattr(args, name) for name in names}, image_size=size, **tuples)
    check_options(config)
    settings, reference = _settings(args), args.architecture
    if user_module.is_reference(reference):
        spec = resolve_preprocess(OWN_INPUT, config.input_options)
        name, build = user_module.name_of(reference), functools.partial(_build_own, reference)
        return settings, _Network(reference, name, spec, {}, (), build)
    architecture = find_spec(reference)
    spec = resolve_preprocess(architecture.preprocess, config.input_options)
    build = functools.partial(_build, architecture, config.options)
    return settings, _Network(reference, architecture.name, spec, config.options, architecture.training_only, build)


def _build_own(reference: str, contract: Contract) -> nn.Module:
    return user_module.build(reference, num_classes=contract.num_outputs)


def _build(architecture: ModelSpec, options: dict[str, Any], contract: Contract) -> nn.Module:
    try:
        return architecture.build(
            num_classes=contract.num_outputs,
            in_channels=contract.preprocess.num_channels,
            image_size=contract.preprocess.image_size,
            **options,
            **({"auxiliary": True} if "auxiliary" in architecture.options else {}),
        )
    except ValueError as error:
        raise InputError(f"{architecture.name}: {error}") from None


def _train(args: argparse.Namespace) -> int:
    try:
        settings, network = _configure(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    data = load_data(args.data, args.test, task=args.task, spec=network.spec, held_out=args.held_out, seed=args.seed)
    torch.manual_seed(args.seed)
    module = network.build(data.contract)
    args.output.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(network.name, total=None)

        def on_step(done: int, total: int, said: str) -> None:
            progress.update(bar, completed=done, total=total, description=f"{network.name} {said}".rstrip())

        best = train(module, data, settings, args.output / "state.pt", resume=args.resume, on_step=on_step)
    module.load_state_dict(best)
    exported = {key: value for key, value in best.items() if not key.startswith(network.training_only)}
    write_model(args.output, exported, data.contract, architecture=network.name, options=network.options)
    measured_on = "held-out" if data.test is None else "test"
    found = measure(module, data.held_out if data.test is None else data.test, args.task)
    document = {"architecture": network.name, "task": args.task, "measured_on": measured_on, "metrics": found}
    write_json(args.output / "metrics.json", document)
    if args.json:
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        for name, value in found.items():
            print(f"{name:<24}{value:.4f}  ({measured_on} images)")
        is_own = user_module.is_reference(network.reference)
        classes = f" --num-classes {data.contract.num_classes}" if is_own else ""  # that its factory is called with
        print(f"next: export-model {network.reference} --weights {args.output}{classes} -o BUNDLE")
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return run_command(lambda: _train(args))


if __name__ == "__main__":
    sys.exit(main())
