"""What the arguments of ``predict`` and its like name: images, a bundle, and what a foreign model is."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeport_runtime.commands.parser import CONTRACT_OPTIONS
from edgeport_runtime.errors import InputError
from edgeport_runtime.hub import is_address

if TYPE_CHECKING:
    import argparse

__all__ = ["check_order", "contract_of", "expand"]

_MAX_LABELS_BYTES = 16 * 2**20


def contract_of(args: argparse.Namespace) -> dict[str, Any] | None:
    """What is told of a model that EdgePort did not write; None where nothing is."""
    given = {name: getattr(args, name) for name in CONTRACT_OPTIONS if getattr(args, name) is not None}
    if "image_size" in given:
        given["image_size"] = given["image_size"][0] if len(given["image_size"]) == 1 else given["image_size"]
    if "labels" in given:
        with Path(given["labels"]).open(encoding="utf-8-sig", errors="replace") as file:
            given["labels"] = file.read(_MAX_LABELS_BYTES).splitlines()
    if args.contract is None:
        return given or None
    from edgeport_runtime.loading.foreign import read_options

    return {**read_options(args.contract), **given}


def expand(paths: list[str]) -> tuple[list[str], Counter[str]]:
    """Files as they are, and the images of folders; how many files of each kind the folders hold beside them."""
    from edgeport_runtime.pixels.decode import is_folder, search_images

    names: list[str] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        if is_folder(path):
            found = search_images(path)
            names += map(str, found.paths)
            left_out += found.left_out
        else:
            names.append(path)
    return names, left_out


def check_order(args: argparse.Namespace) -> None:
    """Raise InputError if the image stands before the bundle."""
    from edgeport_runtime.pixels.formats import image_suffixes

    if is_address(args.bundle):
        return
    first, others = Path(args.bundle), [path for path in args.images if _is_model(path)]
    if others and (first.suffix.lower() in image_suffixes() or not _is_model(args.bundle)):
        words = [others[0], args.bundle, *(path for path in args.images if path != others[0])]
        raise InputError(f"{others[0]} is the bundle, which comes first: run-model {args.command} {shlex.join(words)}")


def _is_model(text: str) -> bool:
    from edgeport_runtime.bundle.manifest import MANIFEST_NAME
    from edgeport_runtime.pixels.decode import is_folder

    return (
        is_address(text)
        or text.lower().endswith(".onnx")
        or (is_folder(text) and (Path(text) / MANIFEST_NAME).is_file())
    )
