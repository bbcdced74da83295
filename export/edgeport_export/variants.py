"""The variants of an export: which ones are made, how they are made, and what each must meet."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx

from edgeport_export.graph.model_file import data_beside, save_model
from edgeport_export.graph.onnx_file import opset_of
from edgeport_export.parity.compare import Limits
from edgeport_export.quantize.calibration import BUILTIN, CalibrationImages
from edgeport_export.quantize.clean import clean
from edgeport_export.quantize.dynamic import DynamicQuantizer
from edgeport_export.quantize.explain import NodeCost, explain
from edgeport_export.quantize.graph import check_not_quantized, mark_inferred
from edgeport_export.quantize.half import overflowing, to_half
from edgeport_export.quantize.histogram import METHODS
from edgeport_export.quantize.judge import EvaluationImages, Judge
from edgeport_export.quantize.recipes import Recipe, Target, family_of, find_recipe
from edgeport_export.quantize.search import Quantizer, Trade, rank, recover, search
from edgeport_export.quantize.static import StaticQuantizer
from edgeport_export.quantize.weight_only import WeightQuantizer
from edgeport_export.quantize.work import multiply_adds, share_of
from edgeport_export.user_lines import say_error
from edgeport_runtime.accuracy.dataset import read_labelled_images
from edgeport_runtime.bundle.manifest import QUANTIZATION_KEY
from edgeport_runtime.errors import AccuracyError, ExportError, InputError, QuantizeError
from edgeport_runtime.outputs.metrics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeport_export.config import QuantizeOptions
    from edgeport_export.quantize.histogram import Method
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.report.outcomes import Seen

__all__ = ["LIMITS", "Made", "Plan", "Planned", "Workshop", "plan_variants"]

LIMITS = {
    "int8": Limits(relative_l2=0.1, agreement=0.0, over="images"),
    "int8-weights": Limits(relative_l2=0.1, agreement=0.0, over="images"),
    "fp16": Limits(relative_l2=5e-3, agreement=0.0, over="images"),
}
_PRECISION = {"int8": "int8", "int8-weights": "int8 weights, float32", "fp16": "float16"}
_MIN_OPSET = 13  # of a scale for each channel
_MIN_IMAGES = 100  # fewer cannot tell 0.98 from chance
_SYNTHETIC_LIMITS = Limits(relative_l2=0.3, agreement=0.0, over="images")  # where ranges are of real images
_BUDGET_LIMITS = Limits(relative_l2=0.9, agreement=0.0, over="images")  # the budget is what is judged by


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One variant to make.

    Attributes:
        name: such as ``int8-arm64``.
        kind: ``int8``, ``fp16`` or ``int8-weights``.
        target: what an int8 variant is made for.
        recipe: how an int8 variant is made.
        is_asked: the user named it; otherwise it is left out if it does not meet its limits.
    """

    name: str
    kind: str
    target: Target | None = None
    recipe: Recipe | None = None
    is_asked: bool = True

    @property
    def precision(self) -> str:
        """The precision that its file asks for."""
        return _PRECISION[self.kind]


class Planned(NamedTuple):
    """Variants to make, and what a user must do to get one that is missing.

    Attributes:
        plans: one for each variant.
        calibration: images for static ranges.
        note: why there is no variant that a user may expect.
        is_random: the weights are random, so that decisions mean nothing.
    """

    plans: tuple[Plan, ...]
    calibration: Path | str | None
    note: str | None
    is_random: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A variant that was made.

    Attributes:
        plan: what was asked for.
        limits: what its stages must meet.
        details: for the manifest.
        trades: layers that went back to float, if a budget was given.
        costs: what each layer costs, if that was asked for.
        notes: what graph passes changed in this variant alone, and why they left what they left.
        layers: names of all layers, those in float among them.
        returned: those that went back to float, in their order.
        seen: what it and the float model give for the user's images; None without any.
    """

    plan: Plan
    limits: Limits
    details: dict[str, Any]
    trades: list[Trade] = field(default_factory=list)
    costs: list[NodeCost] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    seen: Seen | None = None


def plan_variants(options: QuantizeOptions, model: onnx.ModelProto, *, is_random: bool) -> Planned:
    """Decide which variants are made.

    Args:
        options: what was asked for.
        model: the float model.
        is_random: its weights are random, so that synthetic images are as good as real ones.

    Raises:
        InputError: if an option that the request needs is missing.
        QuantizeError: if the model is quantized already, or of an opset in which it cannot be.
    """
    kinds = options.quantize
    calibration = options.calibration
    if kinds == ():
        return Planned((), calibration, None)
    opset = opset_of(model)
    if opset < _MIN_OPSET:
        reason = f"int8 and float16 need opset {_MIN_OPSET}, and the file stays in opset {opset}"
        if kinds is not None:
            raise QuantizeError(f"{reason}; omit --quantize, or convert the file first")
        return Planned((), calibration, f"no int8 variant: {reason}")
    family = family_of(model)
    recipes = {target: find_recipe(family, target, options.scheme) for target in options.target}
    needs = [target for target, recipe in recipes.items() if recipe.scheme == "static"]
    if kinds is None:
        if needs and calibration is None and not is_random:
            note = (
                "no int8 variant: add --calibration DIR, a folder of images as the model will see them, without labels"
            )
            return Planned((), None, note)
        if needs and calibration is None:
            calibration = BUILTIN
    elif "int8" in kinds and needs and calibration is None:
        raise InputError(
            f"int8 for {', '.join(needs)} is static and needs --calibration DIR, a folder of images as the model will "
            f"see them, without labels; --calibration {BUILTIN} uses synthetic images, --scheme dynamic needs none"
        )
    _check_images(options, calibration, is_static=bool(needs))
    check_not_quantized(model)
    plans = []
    for kind in kinds or ("int8",):
        if kind != "int8":
            plans.append(Plan(name=kind, kind=kind))
            continue
        for target, recipe in recipes.items():
            name = "int8" if target == "cpu" else f"int8-{target.removeprefix('cpu-')}"
            plans.append(Plan(name=name, kind=kind, target=target, recipe=recipe, is_asked=kinds is not None))
    return Planned(tuple(plans), calibration, None, is_random)


def _check_images(options: QuantizeOptions, calibration: Path | str | None, *, is_static: bool) -> None:
    """Raise InputError if an option has no images to work on."""
    if options.calibration_method is not None and not is_static:
        raise InputError(
            "--calibration-method is for static int8, but this network's int8 is dynamic, with ranges from each input; "
            "omit it, or add --scheme static"
        )
    if options.max_drop is not None and options.eval is None and calibration in (None, BUILTIN):
        raise InputError(
            "--max-drop needs real images to measure the loss on: add --eval DATA with labels (top-1 or macro F1), or "
            "--calibration DIR without labels (disagreement with the float model)"
        )


class Workshop:
    """Makes the variants of one export, one after another.

    Args:
        source: the float model's file.
        options: what was asked for.
        contract: input and task.
        planned: what is to be made.
        golden: batches of the golden images.
        golden_files: where those come from, if they are the user's own.
        on_progress: called with (done, all) while something takes long.

    Raises:
        InputError: if images or labels cannot be used.
    """

    def __init__(
        self,
        source: Path,
        options: QuantizeOptions,
        contract: Contract,
        planned: Planned,
        *,
        golden: list[NDArray[Any]],
        golden_files: Sequence[Path] = (),
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._options = options
        self._is_random = planned.is_random
        self._on_progress = on_progress
        self._golden = golden
        self._model = onnx.load(source)
        if data_beside(source) is None:  # beyond 2 GB shapes cannot be inferred in memory; the exporter noted them
            self._model = onnx.shape_inference.infer_shapes(self._model)
        mark_inferred(self._model)
        self._multiply_adds = multiply_adds(self._model)
        self._original = onnx.load(source, load_external_data=False)
        self._calibration: CalibrationImages | None = None
        if planned.calibration is not None:
            self._calibration = CalibrationImages(
                planned.calibration, contract, seed=options.seed, on_progress=on_progress
            )
        evaluation = None
        if options.eval is not None:
            labelled = read_labelled_images(options.eval, contract, match=options.match)
            evaluation = EvaluationImages(labelled, contract)
        is_real = self._calibration is not None and not self._calibration.is_builtin
        # Ranges of real images clip synthetic ones: these say nothing of what a variant is for.
        self._has_odd_golden = is_real and options.golden is None
        self._judge = Judge(
            self._model,
            contract,
            golden=[] if self._has_odd_golden else golden,
            golden_files=() if contract.batch is not None else golden_files,
            calibration=self._calibration,
            evaluation=evaluation,
        )

    def make(self, plan: Plan, path: Path) -> Made:
        """Write one variant.

        Raises:
            AccuracyError: if it does not meet its limits or the budget; ``.made`` describes it.
            QuantizeError: if it cannot be made.
        """
        if plan.kind == "fp16":
            return self._half(plan, path)
        try:
            return self._quantized(plan, path)
        except (ExportError, InputError):
            raise
        except Exception as error:  # whatever onnxruntime.quantization, or a session, makes of a graph it does not know
            raise QuantizeError(f"variant {plan.name}: quantizing raises {say_error(error)}") from error

    def _quantized(self, plan: Plan, path: Path) -> Made:
        quantizer, details = self._quantizer(plan)
        layers = quantizer.layers()
        if not layers:
            raise QuantizeError(f"variant {plan.name}: the model has no layer that can be quantized this way")
        costs = []
        if self._options.explain:
            costs = explain(quantizer, rank(quantizer, self._judge, on_progress=self._on_progress))
        trades: list[Trade] = []
        limits = LIMITS[plan.kind]
        if self._options.max_drop is None:
            model = quantizer.quantize(layers)
        else:
            model, trades = search(
                quantizer, self._judge, max_drop=self._options.max_drop, on_progress=self._on_progress
            )
            limits = _BUDGET_LIMITS
        returned = [trade.layer for trade in trades if trade.layer is not None]
        notes = quantizer.notes if isinstance(quantizer, DynamicQuantizer) else ()
        made = Made(plan=plan, limits=limits, details=details, trades=trades, costs=costs, notes=notes)
        made = self._described(made, model, quantizer, returned)
        if plan.recipe is None:
            self._check(made)
        else:
            self._check_share(made)
            model, made = self._checked(model, made, quantizer)
        if self._has_odd_golden and not trades:
            made = replace(made, limits=_SYNTHETIC_LIMITS)
        made = replace(made, seen=self._judge.seen(model, plan.name))
        self._write(model, made, path)
        return made

    def _described(self, made: Made, model: onnx.ModelProto, quantizer: Quantizer, returned: list[str]) -> Made:
        """The same with what the manifest says of a model some of whose layers were returned to float."""
        kept = [name for name in quantizer.layers() if name not in set(returned)]
        every = self._layers(quantizer)
        details = made.details | {
            "num_layers": len(every),
            "float_layers": [*(name for name in every if name not in set(quantizer.layers())), *returned],
            **self._compared(model),
            "drop": None if not made.trades else made.trades[-1].drop.to_dict(),
        }
        if made.plan.recipe is not None:
            details["share"] = round(share_of(kept, self._multiply_adds), 4)
        return replace(made, details=details, layers=tuple(every), returned=tuple(returned))

    @staticmethod
    def _layers(quantizer: Quantizer) -> list[str]:
        """Names of all layers, those that do not pay among them."""
        if isinstance(quantizer, StaticQuantizer) and quantizer.planner is not None:
            return list(quantizer.planner.layers)
        return quantizer.layers()

    def _checked(self, model: onnx.ModelProto, made: Made, quantizer: Quantizer) -> tuple[onnx.ModelProto, Made]:
        """A variant that meets what it must, with as many layers returned to float as that takes.

        Raises:
            AccuracyError: if no choice of layers does, or if it has a budget and does not meet it.
        """
        assert made.plan.recipe is not None
        try:
            self._check(made)
            return model, made
        except AccuracyError as error:
            if made.trades:
                raise
            refusal = error

        def is_met(candidate: onnx.ModelProto) -> bool:
            try:
                self._check(replace(made, details=made.details | self._compared(candidate)))
            except AccuracyError:
                return False
            return True

        layers = quantizer.layers()
        counts = self._multiply_adds
        least = made.plan.recipe.min_share * sum(counts.values())
        found = recover(
            quantizer,
            self._judge,
            is_met=is_met,
            multiply_adds=counts,
            most=int(sum(counts.get(name, 0) for name in layers) - least),
            on_progress=self._on_progress,
        )
        if found is None:
            raise refusal
        model, returned = found
        note = f"{len(returned)} of {len(layers)} layers went back to float, so that it meets its limits"
        return model, self._described(replace(made, notes=(*made.notes, note)), model, quantizer, returned)

    def _check_share(self, made: Made) -> None:
        recipe, share = made.plan.recipe, made.details["share"]
        assert recipe is not None
        if share < recipe.min_share:
            said = (
                f"variant {made.plan.name}: {share:.0%} of its multiply-adds would run in int8 (at least "
                f"{recipe.min_share:.0%}): {_why_float(made)}; --quantize int8-weights stores the weights in a quarter "
                "of the size; no bundle was written"
            )
            raise AccuracyError(said, made=made) if made.trades else QuantizeError(said)

    def _quantizer(self, plan: Plan) -> tuple[Quantizer, dict[str, Any]]:
        if plan.recipe is None:
            return WeightQuantizer(self._model), {"scheme": "weights only", "target": None, "reason": "size"}
        recipe = plan.recipe
        details: dict[str, Any] = {"scheme": recipe.scheme, "target": plan.target, "reason": recipe.reason}
        if recipe.scheme == "dynamic":
            return DynamicQuantizer(self._model, recipe), details
        assert self._calibration is not None
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        quantizer = StaticQuantizer.prepare(model, recipe, self._calibration, is_asked=plan.is_asked)
        method = self._options.calibration_method or self._best_method(quantizer)
        details |= {
            "calibration": {**self._calibration.describe(), "method": method},
            "equalized": list(quantizer.equalized),
            "num_rounded": len(quantizer.rounded),
        }
        return quantizer.with_method(method), details

    def _best_method(self, quantizer: StaticQuantizer) -> Method:
        layers = quantizer.layers()
        scores = {method: self._judge.probe(quantizer.with_method(method).quantize(layers)) for method in METHODS}
        return max(scores, key=lambda method: scores[method])

    def _half(self, plan: Plan, path: Path) -> Made:
        batches = [*self._golden]
        if self._calibration is not None:
            batches += self._calibration.batches()
        float_nodes = overflowing(self._model, batches)
        model = to_half(self._model, float_nodes)
        details = {
            "scheme": "float16",
            "target": None,
            "reason": "half the size; for processors that compute in it",
            "num_layers": len(self._model.graph.node),
            "float_layers": float_nodes,
            **self._compared(model),
            "drop": None,
        }
        nodes = tuple(node.name for node in self._model.graph.node)
        made = Made(plan=plan, limits=LIMITS[plan.kind], details=details, layers=nodes)
        self._check(made)
        made = replace(made, seen=self._judge.seen(model, plan.name))
        self._write(model, made, path)
        return made

    def _write(self, model: onnx.ModelProto, made: Made, path: Path) -> None:
        clean(model, self._original)
        # A lone file tells how it was quantized, by which the runtime knows where and how it may run.
        told = {"scheme": made.details["scheme"], "target": made.details["target"]}
        model.metadata_props.add(key=QUANTIZATION_KEY, value=json.dumps(told, separators=(",", ":")))
        save_model(model, path, check=True)

    def _compared(self, model: onnx.ModelProto) -> dict[str, Any]:
        """For the manifest: the distance from the float model, and the agreement with it where it was measured."""
        found = self._judge.likeness(model)
        details: dict[str, Any] = {"relative_l2": float(f"{found.relative_l2:.4g}")}
        if found.num_images:
            details["agreement"] = {
                "num_images": found.num_images,
                "num_equal": found.num_equal,
                "interval": list(wilson_interval(found.num_equal, found.num_images)),
            }
        return details

    def _check_agreement(self, made: Made) -> None:
        """Hold a variant without a budget to the float model's decisions, where there are enough images to tell."""
        least, found = self._options.min_agreement, made.details.get("agreement")
        if found is None or self._is_random or found["num_images"] < _MIN_IMAGES:
            return
        agreement = found["num_equal"] / found["num_images"]
        if agreement < least:
            low, high = found["interval"]
            raise AccuracyError(
                f"variant {made.plan.name}: it decides as the float model on {found['num_equal']} of "
                f"{found['num_images']} images ({agreement:.1%}, 95% interval {low:.1%} to {high:.1%}; at least "
                f"{least:.1%}); --max-drop POINTS returns layers to float until the loss is within a budget, "
                f"--min-agreement {math.floor(1000 * agreement) / 1000:g} accepts it; no bundle was written",
                made=made,
            )

    def _check(self, made: Made) -> None:
        name, relative_l2 = made.plan.name, made.details["relative_l2"]
        max_drop = self._options.max_drop
        if made.trades and max_drop is not None:
            drop = made.trades[-1].drop
            if drop.points > max_drop:
                raise AccuracyError(
                    f"variant {name}: no choice of layers keeps the loss within {max_drop:g} points; the best found "
                    f"loses {drop.points:g} points of {drop.metric} with {len(made.trades) - 1} of "
                    f"{made.details['num_layers']} layers in float; accept it with --max-drop {drop.points:g}, "
                    "or leave it out with --quantize none; no bundle was written",
                    made=made,
                )
        elif not relative_l2 <= made.limits.relative_l2:
            raise AccuracyError(
                f"variant {name}: its outputs differ from the float model's by a relative L2 of {relative_l2:.2g} on "
                f"the golden and calibration images (at most {made.limits.relative_l2:g}); --max-drop POINTS returns "
                "layers to float until the loss is within a budget, --explain shows what each layer costs; "
                "no bundle was written",
                made=made,
            )
        else:
            self._check_agreement(made)


def _why_float(made: Made) -> str:
    """Why layers of a variant stay in float."""
    if made.trades:
        return "the others went back to float for the budget of --max-drop"
    if made.plan.recipe is not None and made.plan.recipe.is_planned:
        return "the others would be no faster, with their values going there and back"
    return "the others are no linear layers with constant weights"
