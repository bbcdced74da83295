"""Networks of timm, torchvision and transformers by name, built by the installed library."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from edgeport_export.config import Library
from edgeport_export.source.processor import timm_fields
from edgeport_export.user_lines import say_error
from edgeport_runtime.errors import ExportError, InputError
from edgeport_runtime.pixels.preprocess import as_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set
    from types import ModuleType

    import torch
    from torch import nn

    from edgeport_runtime.pixels.preprocess import Size

__all__ = [
    "LIBRARIES",
    "LibraryNetwork",
    "find_network",
    "is_in_library",
    "known_names",
    "names_like",
    "num_outputs_in",
]

_TIMM_DESCRIPTION = "timm's pretrained_cfg"


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryNetwork:
    """A network that a library knows by name.

    Attributes:
        name: as it was asked for, with the library before it.
        source: the library and its version.
        description: what the library calls its description of the input.
        num_classes: that the library gives it, where nobody says otherwise; 0 if it gives it no head.
        labels: of those classes, where the library tells them.
        describe: the fields of the input contract that the library's description specifies, except those given.
        build: makes it, with random weights, from the numbers of outputs and input channels and the size of the input.
    """

    name: str
    source: str
    description: str
    num_classes: int
    labels: tuple[str, ...] = ()
    describe: Callable[[Set[str]], dict[str, Any]] = field(repr=False)
    build: Callable[[int, int, Size], nn.Module] = field(repr=False)


def is_in_library(reference: str) -> bool:
    """True for ``timm:NAME`` and ``torchvision:NAME``."""
    return reference.partition(":")[0] in LIBRARIES and ":" in reference


def find_network(reference: str) -> LibraryNetwork:
    """Find a network by its name.

    Args:
        reference: ``timm:NAME``, with the tag of its pretrained weights or without, or ``torchvision:NAME``, with the
            name of its weights behind a dot or without.

    Raises:
        InputError: if the library is not installed, or has no network of that name.
        ExportError: if the library cannot be imported.
    """
    library, _, name = reference.partition(":")
    return _FINDERS[library](name)


def known_names(library: str) -> list[str]:
    """The names of a library's classifiers, sorted.

    Raises:
        InputError: if the library is not installed.
        ExportError: if it cannot be imported.
    """
    models = _import(library).models
    names: list[str] = models.list_models() if library == "timm" else models.list_models(module=models)
    return names


def names_like(name: str) -> list[str]:
    """What an installed library might call a network of that name, the most likely first; three at most."""
    found = []
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            continue
        try:
            names = known_names(library)
        except (InputError, ExportError):  # the user did not ask for it
            continue
        begins = [known for known in names if known.startswith(name)]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.8)
        found += [f"{library}:{known}" for known in dict.fromkeys([*begins, *close])][:3]
    return sorted(found, key=lambda reference: reference.partition(":")[2] != name)[:3]


def num_outputs_in(state: Mapping[str, torch.Tensor], module: nn.Module, num_outputs: int) -> int:
    """Rows of the head's weight in a checkpoint: of the key whose tensor differs from the module's in them alone.

    Args:
        state: the checkpoint's, with whatever stands before its keys.
        module: the network with another number of outputs, perhaps.
        num_outputs: of that module.

    Returns:
        The number of rows; ``num_outputs`` where no such key is found.
    """
    for key, value in module.state_dict().items():
        if value.ndim < 2 or value.shape[0] != num_outputs:
            continue
        for given, tensor in state.items():
            is_same = given == key or given.endswith(f".{key}")
            if is_same and tensor.shape[1:] == value.shape[1:] and tensor.shape != value.shape:
                return int(tensor.shape[0])
    return num_outputs


def _import(library: str) -> ModuleType:
    try:
        module = importlib.import_module(library)
        return importlib.import_module(f"{library}.models") and module
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise InputError(f"{missing} is not installed; install it: pip install {library}") from None
    except Exception as error:  # whatever its compiled extension raises
        if "operator torchvision::" in str(error):
            raise ExportError(
                "torchvision is installed, but its compiled operators do not load beside this build of PyTorch; "
                "install the torchvision that was built for it: the same release, CPU beside CPU or CUDA beside CUDA"
            ) from error
        raise ExportError(
            f"importing {library} raises {say_error(error)}; install a release of it that fits this build of PyTorch"
        ) from error


def _refuse_name(library: str, name: str) -> NoReturn:
    closest = difflib.get_close_matches(name, known_names(library), n=3, cutoff=0.4)
    hint = f"closest: {', '.join(f'{library}:{found}' for found in closest)}; " if closest else ""
    raise InputError(f"{library} has no image classifier {name!r}; {hint}export-model --list {library} shows all")


def _version(library: str) -> str:
    return f"{library} {importlib.metadata.version(library)}"


def _build(name: str, make: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    try:
        return make(*args, **options)
    except Exception as error:
        raise ExportError(
            f"{name}: building it raises {say_error(error)}; the library cannot make it with these options"
        ) from error


def _timm(name: str) -> LibraryNetwork:
    timm = _import("timm")
    if not timm.is_model(name):
        _refuse_name("timm", name)
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise InputError(f"timm:{architecture} has no weights {tag!r}; it has {', '.join(tags)}")
    config = timm.get_pretrained_cfg(name)
    document: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in config.to_dict().items()
    }
    default_size = as_size(*document["input_size"][1:])

    def build(num_outputs: int, channels: int, size: Size) -> nn.Module:
        options: dict[str, Any] = {"pretrained": False, "num_classes": num_outputs, "in_chans": channels}
        make = functools.partial(_build, f"timm:{name}", timm.create_model, name, **options)
        if size == default_size:
            return make()
        try:
            return make(img_size=size)
        except ExportError as error:
            if not isinstance(error.__cause__, TypeError):
                raise
            return make()  # a network that takes any size has no such option; what else is wrong is raised again

    return LibraryNetwork(
        name=f"timm:{name}",
        source=_version("timm"),
        description=_TIMM_DESCRIPTION,
        num_classes=document["num_classes"] or 0,
        labels=_timm_labels(document),
        describe=lambda given: timm_fields({"pretrained_cfg": document}, given, file=_TIMM_DESCRIPTION),
        build=build,
    )


def _timm_labels(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, as the description has them, or of the set of ImageNet that timm sees by their number."""
    names = document.get("label_names")
    subset = _import("timm").data.infer_imagenet_subset(document)
    if names is None and subset is not None:
        names = _import("timm").data.ImageNetInfo(subset).label_descriptions()
    return tuple(names or ())


def _torchvision(reference: str) -> LibraryNetwork:
    name, _, tag = reference.partition(".")
    models = _import("torchvision").models
    if name not in models.list_models(module=models):
        _refuse_name("torchvision", name)
    weights = models.get_model_weights(name)
    if tag and tag not in weights.__members__:
        raise InputError(f"torchvision:{name} has no weights {tag!r}; it has {', '.join(weights.__members__)}")
    chosen = weights[tag] if tag else weights.DEFAULT

    def build(num_outputs: int, channels: int, _size: Size) -> nn.Module:
        if channels != 3:
            raise InputError(f"torchvision:{name} takes 3 channels, not {channels}; omit --channels and --color")
        return _build(f"torchvision:{name}", models.get_model, name, weights=None, num_classes=num_outputs)

    return LibraryNetwork(
        name=f"torchvision:{reference}",
        source=_version("torchvision"),
        description=str(chosen),
        num_classes=len(chosen.meta["categories"]),
        labels=tuple(chosen.meta["categories"]),
        describe=functools.partial(_torchvision_fields, chosen.transforms()),
        build=build,
    )


def _torchvision_fields(transform: Any, given: Set[str]) -> dict[str, Any]:
    """Of torchvision's ``ImageClassification`` preset."""
    (resize_size,), (image_size,) = transform.resize_size, transform.crop_size
    fields = {"interpolation": transform.interpolation.value, "scale": "unit"}
    fields |= {"mean": tuple(transform.mean), "std": tuple(transform.std), "image_size": image_size}
    fields |= {"resize": "shorter", "resize_size": resize_size}
    # A side given on the command line moves the resize, by the ratio of the two sides here.
    return {name: value for name, value in fields.items() if name == "image_size" or name not in given}


_FINDERS: dict[str, Callable[[str], LibraryNetwork]] = {"timm": _timm, "torchvision": _torchvision}
LIBRARIES = get_args(Library)
"""Libraries whose networks are exported by name."""
