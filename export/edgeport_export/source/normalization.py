"""Whether a mean and standard deviation that the user gave look like any that networks are trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeport_runtime.pixels.preprocess import PreprocessSpec

__all__ = ["odd_normalization"]

_CLOSE = 0.02
# Of pixels from 0 to 1, as training scripts and model cards give them; either order of the channels.
_KNOWN = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "Inception and ViT": ((0.5,) * 3, (0.5,) * 3),
    "CLIP": ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-10, mean of the images' deviations": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "Caffe": ((0.4850, 0.4580, 0.4076), (1 / 255,) * 3),
    "MNIST": ((0.1307,), (0.3081,)),
    "Fashion-MNIST": ((0.2860,), (0.3530,)),
    "grey, a half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
    "none, of three colours": ((0.0,) * 3, (1.0,) * 3),
}


def odd_normalization(spec: PreprocessSpec) -> str | None:
    """What to tell the user of a mean and deviation that may be a slip; None if they are known ones."""
    scale = 255 if spec.scale == "byte" else 1
    num_colours = spec.num_channels - spec.has_alpha
    mean, std = ([value / scale for value in values[:num_colours]] for values in (spec.mean, spec.std))
    if _name_of(mean, std) is not None:
        return None
    given = f"mean {list(spec.mean)} and std {list(spec.std)}"
    name = _name_of(std, mean)
    if name is not None:
        return f"{given} look exchanged: the other way round they are those of {name}; check --mean and --std"
    return (
        f"{given} are not among the {len(_KNOWN)} in common use that EdgePort knows (ImageNet's are "
        f"{' '.join(map(str, _KNOWN['ImageNet'][0]))} and {' '.join(map(str, _KNOWN['ImageNet'][1]))}); "
        "check that the network was trained with them"
    )


def _name_of(mean: Sequence[float], std: Sequence[float]) -> str | None:
    return next((name for name, known in _KNOWN.items() if _is_like((mean, std), known)), None)


def _is_like(given: tuple[Sequence[float], ...], known: tuple[Sequence[float], ...]) -> bool:
    """In either order of the channels."""
    if len(given[0]) != len(known[0]):
        return False
    return any(
        all(
            abs(a - b) <= _CLOSE
            for ours, theirs in zip(given, known, strict=True)
            for a, b in zip(ours[::step], theirs, strict=True)
        )
        for step in (1, -1)
    )
