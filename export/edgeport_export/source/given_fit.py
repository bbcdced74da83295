"""Finds the form in which a given model has EdgePort's input and output and still gives what the file gives."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeport_export.config import DEFAULT_OPSET
from edgeport_export.graph.adapt import adapt, convert_opset, free_batch
from edgeport_export.graph.lower import OLDEST_TRACED
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.parity.compare import Limits, compare
from edgeport_export.parity.onnx_original import open_plainly
from edgeport_runtime.engine.session import INPUT_NAME
from edgeport_runtime.errors import ExportError, InputError
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

    from edgeport_export.config import ExportConfig
    from edgeport_export.parity.onnx_original import OnnxOriginal
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.engine.foreign import Ports

__all__ = ["Fitted", "fit", "noise"]

# Relative L2. The chain judges again, and knows what float32 can do; a wrong batch or operator is off by far more.
_LIMITS = (1e-5, 1e-4)
_QUANTIZED_LIMITS = (1e-2,)  # a value between two levels may fall to either


class Fitted(NamedTuple):
    """The model with EdgePort's input and output, its contract, what had to be done, and the opset it is to end in."""

    model: onnx.ModelProto
    contract: Contract
    notes: list[str]
    opset: int


def fit(
    model: onnx.ModelProto,
    ports: Ports,
    contract: Contract,
    original: OnnxOriginal,
    finish: str | None,
    config: ExportConfig,
    *,
    is_quantized: bool,
) -> Fitted:
    """The first of some ways to adapt a model that gives what the file gives: any batch before a fixed one.

    Args:
        model: the file's, in float32.
        ports: its input and output.
        contract: with the batch that was asked for.
        original: the file as its author wrote it.
        finish: operator that is put behind the output.
        config: tells opset and batch.
        is_quantized: it stays in its opset, and values between two levels may fall to either.

    Raises:
        InputError: if the batch or the opset that was asked for is not one that the file can be given.
    """
    own, wanted = opset_of(model), config.opset
    is_asked = wanted != DEFAULT_OPSET
    if is_quantized and is_asked and own != wanted:
        raise InputError(f"{original.name} is quantized already, and stays in opset {own}; omit --opset")
    # Below what EdgePort lowers by itself, onnx's converter knows few operators.
    target = max(wanted, OLDEST_TRACED) if own > wanted else wanted
    opsets = [own] if is_quantized or own == wanted else [target] if is_asked else [target, own]
    for candidate, fixed in _batches(model, ports, is_quantized=is_quantized):
        fits = fixed is None or config.batch in (None, fixed)
        tried = replace(contract, batch=config.batch if fixed is None else fixed)
        ways = itertools.product(_QUANTIZED_LIMITS if is_quantized else _LIMITS, opsets) if fits else ()
        for limit, opset in ways:
            adapted: onnx.ModelProto | None = adapt(candidate, ports, tried, finish=finish)
            if adapted is not None and opset != own:
                adapted = convert_opset(adapted, opset)
            if adapted is not None and _is_same(adapted, ports, tried, original, limit=limit):
                final = wanted if opset == target else own
                notes = _notes_on_fit(ports, tried, config, own=own, opset=final, is_quantized=is_quantized)
                return Fitted(adapted, tried, notes, final)
    if config.batch is not None and ports.batch is not None:
        raise InputError(
            f"--batch is {config.batch}, but {original.name} takes {ports.batch} at once, and gives other answers "
            "where that is changed; omit --batch"
        )
    if is_asked and own != wanted:
        raise InputError(
            f"--opset is {wanted}, but {original.name} has opset {own}, and a conversion does not give what it gives; "
            "omit --opset"
        )
    raise ExportError(f"{original.name} gives other answers behind EdgePort's input and output; no bundle was written")


def _batches(
    model: onnx.ModelProto, ports: Ports, *, is_quantized: bool
) -> Iterator[tuple[onnx.ModelProto, int | None]]:
    if ports.batch is None:
        yield model, None
        return
    for folds in (False,) if is_quantized else (True, False):  # or weights would be turned into floats
        freed = free_batch(model, ports, folds=folds)
        if freed is not None:
            yield freed, None
    yield model, ports.batch


def _notes_on_fit(
    ports: Ports, contract: Contract, config: ExportConfig, *, own: int, opset: int, is_quantized: bool
) -> list[str]:
    notes = ["the file is quantized already, and is bundled as it is"] if is_quantized else []
    if opset != own:
        notes.append(f"opset {own} was converted to {opset}")
    elif opset != config.opset and not is_quantized:
        notes.append(f"opset {own} is kept: a conversion to {config.opset} does not give what the file gives")
    if ports.batch is not None:
        how = f"takes {_images(ports.batch)} at once, and was made to take {contract.batch or 'any number'}"
        if contract.batch == ports.batch and config.batch is None:
            how = f"takes {_images(ports.batch)} at once and no other number, which its constants hold"
        if contract.batch != ports.batch or config.batch is None:
            notes.append(f"the file {how}")
    return notes


def _images(count: int) -> str:
    return f"{count} image{'s' * (count > 1)}"


def _is_same(
    adapted: onnx.ModelProto, ports: Ports, contract: Contract, original: OnnxOriginal, *, limit: float
) -> bool:
    """Whether the adapted model gives what the file gives, for batches of several sizes."""
    try:
        session = open_plainly(adapted, name=original.name)
    except InputError:
        return False
    for size in (3, 1) if contract.batch is None else (contract.batch,):
        images = noise(ports, size)
        pieces = np.split(images, size) if original.runs_alone and contract.batch is None else [images]
        try:
            outputs_BK = np.concatenate([session.run(None, {INPUT_NAME: piece})[0] for piece in pieces])
        except Exception:  # noqa: BLE001  ONNX Runtime's exceptions share no base class
            return False
        expected_BK = original.run(images)
        if outputs_BK.shape != expected_BK.shape:
            return False
        limits = Limits(relative_l2=limit, agreement=0.0, over="images")
        if not compare("adapted", outputs_BK, expected_BK, limits=limits, contract=contract).passed:
            return False
    return True


def noise(ports: Ports, size: int) -> NDArray[np.float32]:
    """Random images; of pixels, where the model takes those."""
    shape = (size, ports.channels, *sides_of(ports.image_size))
    noise_BCHW = np.random.default_rng(0).standard_normal(shape, np.float32)
    return noise_BCHW * 64 + 128 if ports.dtype is np.uint8 else noise_BCHW
