"""Image classifiers of transformers, from a folder or a repository of the hub: built by the installed library.

The library gives the code, ``config.json`` says which of its networks and how large. The weights are read by EdgePort,
which runs nothing from them, and handed over; transformers knows under which keys each release wrote them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from edgeport_export.source.processor import CONFIG
from edgeport_export.user_lines import say_error
from edgeport_models.weights import check_numbers, find_weights
from edgeport_runtime.errors import ExportError, InputError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from edgeport_models.weights import Source

__all__ = ["LAYOUT", "HuggingFace", "find_classifier", "find_source", "is_huggingface", "timm_name", "weights_of"]

LAYOUT = "Hugging Face transformers"
"""What the manifest calls the layout of the weights."""

_PREFIX = "hf:"
_COUNTER = "num_batches_tracked"
_OTHER_INPUT = {
    "imagegpt": "numbers of colours in place of images",
    "shieldgemma2": "text beside the image",
    "siglip2": "patches that were cut beforehand in place of images",
}
# What would run code, or make another network of the weights than the one that is exported.
_REFUSED = {
    "auto_map": "its code is in the repository, and EdgePort runs no code of a repository (trust_remote_code)",
    "quantization_config": "its weights are already quantized",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFace:
    """An image classifier that ``config.json`` describes.

    Attributes:
        name: without the folders, which are the build machine's.
        source: the library, its version, and its class.
        where: its folder or repository, for messages.
        kind: the class.
        config: the library's configuration.
    """

    name: str
    source: str
    where: str = field(repr=False)
    kind: Any = field(repr=False)
    config: Any = field(repr=False)

    def fill(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """The network in float32 with these weights, under the keys of any release of transformers.

        Raises:
            WeightsError: naming keys that are missing, unexpected or of another shape, or that hold no numbers.
            ExportError: if the library cannot build the network.
        """
        check_numbers(state, source=self.where)
        try:
            with _quiet():
                module, loaded = self.kind.from_pretrained(
                    None,
                    config=self.config,
                    state_dict=dict(state),
                    attn_implementation="eager",
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,  # told below
                    output_loading_info=True,
                )
        except Exception as error:
            raise ExportError(
                f"{self.name}: transformers cannot build it: {say_error(error)}; install what it needs, or the "
                "release of transformers that wrote it"
            ) from error
        found = {
            "missing": [key for key in loaded["missing_keys"] if not key.endswith(_COUNTER)],
            "unexpected": list(loaded["unexpected_keys"]),
            "of another shape": [str(one[0]) for one in loaded["mismatched_keys"]],
        }
        told = [f"{kind}: {', '.join(sorted(keys)[:5])}" for kind, keys in found.items() if keys]
        if told or loaded["error_msgs"]:
            reason = "; ".join([*told, *map(str, loaded["error_msgs"])])
            raise WeightsError(f"weights {self.where} do not fit {self.kind.__name__}: {reason}")
        result: nn.Module = module
        return result


def is_huggingface(reference: str) -> bool:
    """True for ``hf:FOLDER`` and ``hf://OWNER/NAME[@REVISION]``."""
    return reference.startswith(_PREFIX)


def weights_of(reference: str) -> Path | str:
    """Where the weights of such a network are: the folder, or the address of the repository."""
    return reference if reference.startswith(f"{_PREFIX}//") else Path(reference.removeprefix(_PREFIX))


def find_source(reference: str) -> Source:
    """The weights and descriptions of such a network.

    Raises:
        InputError: if there is no such folder.
        WeightsError: if it lacks them, or the repository cannot be had.
    """
    where = weights_of(reference)
    if isinstance(where, Path) and not where.is_dir():
        raise InputError(f"{reference}: {where} is no folder; give hf:FOLDER with a {CONFIG}, or hf://OWNER/NAME")
    return find_weights(where)


def timm_name(source: Source) -> str | None:
    """``timm:NAME``, where ``config.json`` is that of a network of timm; else None."""
    name = source.config.get("architecture")
    return (
        f"timm:{name}" if isinstance(name, str) and source.config.get("model_type") in (None, "timm_wrapper") else None
    )


def find_classifier(reference: str, source: Source) -> HuggingFace:
    """The network of transformers that a folder or repository describes.

    Args:
        reference: as of ``is_huggingface``.
        source: what is there.

    Raises:
        InputError: if transformers is not installed.
        WeightsError: if it describes no image classifier of transformers.
    """
    document = source.config
    for key, reason in _REFUSED.items():
        if document.get(key):
            raise WeightsError(
                f"{CONFIG} of {source.name} has {key}: {reason}; give the float32 network as a module of your own, "
                "file.py:factory"
            )
    library = _library()
    kind = _classifier_in(document, source, library)
    try:
        with _quiet():
            config = library.transformers.CONFIG_MAPPING[document["model_type"]].from_dict(document)
    except Exception as error:
        raise WeightsError(
            f"{CONFIG} of {source.name}: transformers cannot use it: {say_error(error)}; mend it, or install the "
            "release of transformers that wrote it"
        ) from error
    where = weights_of(reference)
    name = reference if isinstance(where, str) else f"{_PREFIX}{where.resolve().name}"
    version = importlib.metadata.version("transformers")
    return HuggingFace(
        name=name, source=f"transformers {version}, {kind.__name__}", where=source.name, kind=kind, config=config
    )


class _Library(NamedTuple):
    transformers: Any
    classifiers: Mapping[str, str | tuple[str, ...]]


def _library() -> _Library:
    try:
        transformers = importlib.import_module("transformers")
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        return _Library(transformers, auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it: pip install transformers") from None
    except Exception as error:
        raise ExportError(
            f"importing transformers raises {say_error(error)}; install a release that fits this build of PyTorch"
        ) from error


def _classifier_in(document: Mapping[str, Any], source: Source, library: _Library) -> Any:
    """The library's class that ``config.json`` names, which must be one for images."""
    where = f"{CONFIG} of {source.name}"
    model_type, named = document.get("model_type"), document.get("architectures")
    if not document:
        raise WeightsError(f"{source.name} has no {CONFIG} that names the network; give what save_pretrained wrote")
    if not isinstance(model_type, str) or not isinstance(named, list) or len(named) != 1:
        raise WeightsError(f"{where} does not say what it describes, by model_type and architectures; give them there")
    known = library.classifiers.get(model_type, ())
    if named[0] not in ((known,) if isinstance(known, str) else known):
        raise WeightsError(
            f"{where}: architectures is {named[0]!r}, which is no image classifier of transformers (model_type "
            f"{model_type!r}); EdgePort exports *ForImageClassification"
        )
    if model_type in _OTHER_INPUT:
        raise WeightsError(f"{where}: {named[0]} takes {_OTHER_INPUT[model_type]}; choose a network of images alone")
    try:
        return getattr(library.transformers, named[0])
    except Exception as error:  # of packages that import when they are asked
        raise ExportError(f"transformers cannot give {named[0]}: {say_error(error)}; install what it needs") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back progress bars and a table of keys, which the one error tells."""
    logging = importlib.import_module("transformers.utils.logging")
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()
