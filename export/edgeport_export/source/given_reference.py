"""What the framework that a model was trained in gives: an ``.npz`` with inputs and outputs, or images and outputs."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeport_runtime.errors import InputError
from edgeport_runtime.pixels.preprocess import preprocess

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.engine.foreign import Ports

__all__ = ["read_reference"]

_MAX_BYTES = 2**30
_REMEDY = "numpy.savez(FILE, inputs=..., outputs=...) writes one"


def read_reference(path: Path, ports: Ports, contract: Contract) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read the inputs, float32 (N, C, H, W), and the outputs, float32 (N, K).

    Args:
        path: an ``.npz`` with the array ``outputs``, and either ``inputs``, which are what the model takes, in its own
            order of axes, or ``images``, uint8 (N, H, W, 3) or (N, H, W), which are prepared as the contract says.
        ports: of the model.
        contract: of the model.

    Raises:
        InputError: if the file is none, larger than 1 GiB, or its arrays are not of these shapes.
    """
    arrays = _read(path)
    given = [key for key in ("inputs", "images") if key in arrays]
    if "outputs" not in arrays or len(given) != 1:
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, not outputs and one of inputs or images; {_REMEDY}"
        )
    values, outputs = arrays[given[0]], arrays["outputs"]
    if given == ["images"]:
        if values.dtype != np.uint8 or values.ndim not in (3, 4) or not len(values):
            raise InputError(
                f"{path}: images is {values.dtype} {values.shape}, not uint8 (N, H, W, 3) or (N, H, W); {_REMEDY}"
            )
        inputs_BCHW: NDArray[Any] = np.stack([preprocess(image, contract.preprocess) for image in values])
    else:
        inputs_BCHW = values.transpose(0, 3, 1, 2) if ports.layout == "nhwc" and values.ndim == 4 else values
        if inputs_BCHW.shape[1:] != contract.input_shape or not len(inputs_BCHW):
            raise InputError(
                f"{path}: inputs has the shape {values.shape}, which is not what the model takes; {_REMEDY}"
            )
    if outputs.size != len(inputs_BCHW) * contract.num_outputs or len(outputs) != len(inputs_BCHW):
        raise InputError(
            f"{path}: outputs has the shape {outputs.shape}, not ({len(inputs_BCHW)}, {contract.num_outputs}); "
            f"{_REMEDY}"
        )
    outputs_BK = outputs.reshape(len(inputs_BCHW), contract.num_outputs)
    return np.ascontiguousarray(inputs_BCHW, np.float32), outputs_BK.astype(np.float32)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
                raise InputError(f"{path} unpacks to more than {_MAX_BYTES:,} bytes; give fewer inputs")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not an .npz of plain arrays: {error}; {_REMEDY}") from None
