"""The training loop. Shapes: B images, C channels, H W image."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeport_models.tasks import loss
from edgeport_runtime.errors import ExportError, InputError
from training.files import write_atomically
from training.metrics import SCORES, measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.data import Data

__all__ = ["Settings", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a network is trained.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step.
        lr: highest learning rate of AdamW (Loshchilov and Hutter 2019).
        weight_decay: of matrices and kernels, not of biases and norms.
        warm_up: part of all steps over which the rate rises linearly; then it falls to 0 as a cosine (Loshchilov and
            Hutter 2017, Equation 5).
        rotate: images are turned by up to so many degrees.
        zoom: and enlarged or made smaller by up to this part.
        shift: and moved by up to this part of their side.
        flip: and mirrored, half of them.
        seed: of everything random; each epoch draws from its own.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warm_up: float
    rotate: float
    zoom: float
    shift: float
    flip: bool
    seed: int


def train(
    module: nn.Module,
    data: Data,
    settings: Settings,
    state_path: Path,
    *,
    resume: bool,
    on_step: Callable[[int, int, str], None],
) -> dict[str, torch.Tensor]:
    """Train a module and give the state of its best epoch.

    Args:
        module: changed in place.
        data: ``train`` to learn from, ``held_out`` to choose the epoch by.
        settings: see there.
        state_path: written after each epoch: everything that ``resume`` needs.
        resume: go on from there.
        on_step: called with (steps done, steps in all, the last epoch's score).

    Raises:
        InputError: if there is nothing to resume, or it was begun with other settings.
        ExportError: if the loss is no longer finite.
    """
    optimizer = _optimizer(module, settings)
    score_name = SCORES[data.contract.task]
    first, best_score, best = 0, -math.inf, {}
    begun = asdict(settings) | _described(data)
    if resume:
        first, best_score, best = _resume(state_path, module, optimizer, begun)
    num_steps = len(_batches(torch.arange(len(data.train.targets)), settings.batch_size))
    said = ""
    for epoch in range(first, settings.epochs):
        torch.manual_seed(settings.seed * 100_003 + epoch)  # an epoch is the same whether resumed at or not
        module.train()
        for i, rows in enumerate(_batches(torch.randperm(len(data.train.targets)), settings.batch_size)):
            step = epoch * num_steps + i
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * _schedule(step, settings.epochs * num_steps, settings.warm_up)
            value = _loss(module, _augment(data.train.images[rows], settings), data.train.targets[rows], data)
            if not torch.isfinite(value):
                raise ExportError(f"the loss is {value.item()} in epoch {epoch + 1}; use a smaller --lr")
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            on_step(step + 1, settings.epochs * num_steps, said)
        score = measure(module, data.held_out, data.contract.task)[score_name]
        said = f"{score_name} {score:.4f}"
        if score >= best_score:
            best_score, best = score, {key: value.clone() for key, value in module.state_dict().items()}
        state = {
            "epoch": epoch + 1,
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best_score": best_score,
            "best": best,
            "settings": begun,
        }
        write_atomically(state_path, lambda path, state=state: torch.save(state, path))
    return best


def _described(data: Data) -> dict[str, Any]:
    """What must be the same where a training is resumed: the contract, and how many images it learns from."""
    return {
        "data or input": data.contract.to_dict(),
        "held-out part": [len(data.train.targets), len(data.held_out.targets)],
    }


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Rows in batches; a last one of a single row joins the one before, since BatchNorm cannot train on one image."""
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _loss(module: nn.Module, x_BCHW: torch.Tensor, targets: torch.Tensor, data: Data) -> torch.Tensor:
    try:
        output = module(x_BCHW)
    except ValueError as error:  # of BatchNorm: one value per channel
        raise InputError(
            f"the network cannot be trained on a batch of {len(x_BCHW)} ({error}); change --batch-size"
        ) from None
    if isinstance(output, tuple):  # logits, then those of auxiliary heads (Szegedy et al. 2014, Section 5)
        first, *others = (loss(data.contract.task, logits_BK, targets) for logits_BK in output)
        total: torch.Tensor = first + 0.3 * torch.stack(others).sum()
        return total
    return loss(data.contract.task, output, targets)


def _schedule(step: int, num_steps: int, warm_up: float) -> float:
    num_warm = max(1, round(warm_up * num_steps))
    if step < num_warm:
        return (step + 1) / num_warm
    return 0.5 * (1 + math.cos(math.pi * (step - num_warm) / max(1, num_steps - num_warm)))


def _augment(x_BCHW: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Turn, scale, move and mirror each image at random; what comes in at the edges repeats them."""
    if not (settings.rotate or settings.zoom or settings.shift or settings.flip):
        return x_BCHW
    num = len(x_BCHW)
    angle, scale, dx, dy = (torch.rand(4, num) * 2 - 1).unbind()
    angle, scale = angle * math.radians(settings.rotate), 1 + scale * settings.zoom
    mirror = torch.where(torch.rand(num) < 0.5, -1.0, 1.0) if settings.flip else torch.ones(num)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [cos * mirror, -sin, dx * 2 * settings.shift, sin * mirror, cos, dy * 2 * settings.shift]
    matrices_B23 = torch.stack(rows, dim=1).reshape(num, 2, 3)
    grid = nn.functional.affine_grid(matrices_B23, list(x_BCHW.shape), align_corners=False)
    return nn.functional.grid_sample(x_BCHW, grid, padding_mode="border", align_corners=False)


def _optimizer(module: nn.Module, settings: Settings) -> torch.optim.AdamW:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr)


def _resume(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, begun: dict[str, Any]
) -> tuple[int, float, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist, so there is nothing to resume; omit --resume")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        changed = [name for name, value in begun.items() if state["settings"].get(name) != value]
        if changed:
            raise InputError(
                f"{path} was started with another {', '.join(changed)}; give the same options, or omit --resume"
            )
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        return state["epoch"], state["best_score"], state["best"]
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything: struct.error, AssertionError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a state of this training, or is damaged: {reason}") from None
