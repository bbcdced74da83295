"""How the commands print what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeport_runtime.accuracy.evaluation import BinaryEvaluation, MulticlassEvaluation
from edgeport_runtime.pixels.preprocess import sides_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeport_runtime.accuracy.comparison import Comparison, Decided
    from edgeport_runtime.accuracy.evaluation import Evaluation, MultilabelEvaluation
    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.bundle.manifest import Manifest
    from edgeport_runtime.commands.compare import Compared
    from edgeport_runtime.outputs.predictions import Prediction

__all__ = [
    "describe_input",
    "print_assignment",
    "print_benchmark",
    "print_comparison",
    "print_contract",
    "print_diagnosis",
    "print_evaluation",
    "print_heatmap",
    "print_manifest",
    "print_predictions",
]

_NUM_CONFUSIONS = 5
_NUM_FLIPS = 10


def describe_input(contract: Contract) -> str:
    """How an image becomes the network's input, in a line."""
    spec = contract.preprocess
    height, width = spec.image_sides
    size = f"{width}x{height}" if height == width else f"{width} wide, {height} high"
    is_one, (rows, columns) = isinstance(spec.resize_size, int), sides_of(spec.resize_size)
    resize = {
        "shorter": f"resize shorter side to {rows}" if is_one else f"resize to cover {columns}x{rows}",
        "exact": f"resize both sides to {rows}" if is_one else f"resize to {columns}x{rows}",
        "pad": f"resize to fit, padded with {' '.join(map(str, spec.pad_color or ()))}",
        "none": "no resize: images must have this size",
    }[spec.resize] + ("" if spec.resize == "none" else f" ({spec.interpolation})")
    return (
        f"{spec.color} {size}, batch {contract.batch or 'any'}; {resize}, "
        f"scale {spec.scale}, mean {list(spec.mean)}, std {list(spec.std)}"
        f"{f', {spec.bits} bits of 16' if spec.bits not in (None, 16) else ''}"
    )


def print_contract(contract: Contract) -> None:
    """What the model takes and what its output means."""
    labels = contract.labels
    names = "not known" if labels is None else ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    print(f"task           {contract.task}, {contract.num_classes} classes; labels: {names}")
    if contract.thresholds is not None:
        print(f"thresholds     {', '.join(map(str, contract.thresholds))}")
    print(f"output         {contract.output}")
    print(f"input          {describe_input(contract)}")


def print_manifest(manifest: Manifest) -> None:
    """What a bundle holds, where it comes from, and how far its stages are from PyTorch."""
    architecture, weights = manifest.architecture, manifest.weights
    print(
        f"architecture   {architecture['name']} ({architecture['num_params']:,} parameters; {architecture['source']})"
    )
    if architecture["options"]:
        print("options        " + ", ".join(f"{name} {value}" for name, value in architecture["options"].items()))
    print("weights        " + "; ".join(str(weights[key]) for key in ("file", "note") if key in weights))
    print_contract(manifest.contract)
    for variant in manifest.variants:
        print(f"variant        {variant.name}: {variant.file}, opset {variant.opset}, {variant.total_bytes:,} bytes")
        if variant.quantization is not None:
            details = variant.quantization
            print(f"quantized      {variant.name}: {details['scheme']}, relative L2 {details.get('relative_l2')}")
    for stage in manifest.parity:
        told = f"skipped: {stage['skipped']}" if "skipped" in stage else f"relative L2 {stage.get('relative_l2')}"
        print(f"parity         {stage['stage']}: {told}")
    versions = dict(manifest.provenance)
    by_source: dict[str, list[str]] = {}
    for name, source in versions.pop("sources", {}).items():
        by_source.setdefault(source, []).append(name)
    for source, names in by_source.items():
        print(f"from           {source}: {', '.join(names)}")
    print("made with      " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def print_assignment(told: Mapping[str, Any], name: str) -> None:
    """What runs where, and why: what ``Classifier.explain`` says of the model ``name``."""
    print(f"{told['variant'] or name} on {told['device']}, executed in {told['precision']}")
    for reason in told["reasons"]:
        print(f"  {reason}")
    for provider, counts in (told["assignment"] or {}).items():
        operators = ", ".join(f"{count} {operator}" for operator, count in counts.items())
        print(f"{provider}: {sum(counts.values())} nodes ({operators})")
    if told["assignment"] is None:
        print("this onnxruntime does not report which node runs where; install onnxruntime>=1.24")


def print_diagnosis(diagnosis: Mapping[str, Any]) -> None:
    """Print the machine, and one line for each package, device and problem."""
    machine, cpus = diagnosis["machine"], diagnosis["cpus"]
    print(f"machine        {machine['cpu']}, {machine['system']}, Python {diagnosis['python']}")
    sets = diagnosis["instruction_sets"]
    told = "not reported by this system" if sets is None else ", ".join(sets) or "none that matter here"
    print(f"instructions   {told}")
    limited = "" if cpus["allowed"] == cpus["machine"] else f" of {cpus['machine']}, limited by affinity or container"
    print(f"processors     {cpus['allowed']}{limited}")
    print("packages       " + ", ".join(f"{name} {version}" for name, version in diagnosis["packages"].items()))
    for device, reason in diagnosis["devices"].items():
        print(f"device         {device}: {'can be used' if reason is None else f'no: {reason}'}")
    print(f"telemetry      {diagnosis['telemetry']}")
    cache = diagnosis["cache"]
    print(f"cache          {cache['folder']}, {cache['size_bytes'] / 1e6:.0f} MB")
    for problem in diagnosis["problems"]:
        print(f"PROBLEM        {problem}")


def print_benchmark(result: Mapping[str, Any]) -> None:
    """A line for each variant, device and batch size."""
    machine = result["machine"]
    print(f"{machine['cpu']}, {machine['num_cpus']} processors, onnxruntime {result['versions']['onnxruntime']}")
    print(
        f"{'variant':<14} {'device':<8} {'batch':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'images/s':>9} "
        f"{'ratio':>6} {'start ms':>8} {'MB':>6}"
    )
    for row in result["rows"]:
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        print(
            f"{row['variant']:<14} {row['device']:<8} {row['batch']:>5} {row['p50_ms']:>9.3f} {row['p90_ms']:>9.3f} "
            f"{row['p99_ms']:>9.3f} {row['images_per_s']:>9.1f} {row['times_first']:>5.2f}x {row['start_ms']:>8.0f} "
            f"{peak:>6}"
        )
    for name, reason in result["excluded"].items():
        print(f"not timed: {name}: {reason}")


def print_comparison(found: Compared) -> None:
    """Both models, how far they agree, which is right more often, and the images that they decide otherwise."""
    comparison = found.comparison
    for letter, side in (("A", found.first), ("B", found.second)):
        variant = "" if side.variant is None else f"{side.variant}, "
        print(
            f"{letter}  {side.name}: {variant}on {side.device} in {side.precision}, {side.size_bytes / 1e6:.2f} MB, "
            f"{side.latency_ms:.3f} ms per call of {found.batch}"
        )
    size = found.second.size_bytes / found.first.size_bytes
    print(f"B is {found.first.latency_ms / found.second.latency_ms:.2f} times as fast, and {size:.2f} times the size")
    low, high = comparison.interval
    print(
        f"same decision      {comparison.num_equal} of {comparison.num_images} images ({comparison.agreement:.2%}, "
        f"95% interval {low:.2%} to {high:.2%})"
    )
    if comparison.labelled is not None:
        told = comparison.labelled
        num_images = comparison.num_images
        print(f"right              A {told.both + told.first_only}, B {told.both + told.second_only} of {num_images}")
        print(
            f"                   A alone {told.first_only}, B alone {told.second_only}; McNemar's test: "
            f"p = {told.p_value:.3g}"
        )
    _print_changes(comparison)
    for flip in comparison.flips[:_NUM_FLIPS]:
        print(f"  {flip.image}: A {_decided(flip.first)}, B {_decided(flip.second)}")
    if len(comparison.flips) > _NUM_FLIPS:
        print(f"  and {len(comparison.flips) - _NUM_FLIPS} more; --csv FILE or --json has all of them")
    if comparison.unusable:
        print(f"not usable         {len(comparison.unusable)} images, which are in no figure")


def _print_changes(comparison: Comparison) -> None:
    """The classes for which the models decide a different number of images, or have a different number right."""
    changes = [c for c in comparison.classes if (c.num_first, c.right_first) != (c.num_second, c.right_second)]
    for c in sorted(changes, key=lambda c: -abs(c.num_second - c.num_first))[:_NUM_FLIPS]:
        right = "" if c.num_true is None else f"; right {c.right_first} and {c.right_second} of {c.num_true}"
        print(f"  {c.index if c.label is None else c.label}: decided for {c.num_first} and {c.num_second}{right}")


def _decided(side: Sequence[Decided]) -> str:
    return "; ".join(f"{d.index if d.label is None else d.label} {d.score:.1%}" for d in side) or "nothing"


def print_predictions(image: str, predictions: Sequence[Prediction], contract: Contract) -> None:
    """An image and its classes with their probabilities; what is decided is marked where it could be nothing."""
    print(image)
    can_decide_nothing = contract.task == "multilabel" or (contract.task == "multiclass" and contract.thresholds)
    for p in predictions:
        mark = ("* " if p.is_decided else "  ") if can_decide_nothing else ""
        print(f"  {mark}{p.score:7.2%}  {p.index if p.label is None else p.label}")
    if contract.task == "multiclass" and contract.thresholds and not predictions[0].is_decided:
        print(f"  nothing is decided: below the threshold of {contract.thresholds[0]:.2%}")


def print_heatmap(result: Mapping[str, Any]) -> None:
    """What a heat map is of, where it was written, and how it was made."""
    rows = result["map"]
    name = result["label"] or f"class {result['index']}"
    why = "" if result["reason"] is None else f" ({result['reason']})"
    print(
        f"{result['image']}: {name} ({result['score']:.1%}): wrote {result['file']}, {len(rows)}x{len(rows[0])} by "
        f"{result['method']}{why}"
    )


def print_evaluation(result: Evaluation, contract: Contract) -> None:
    """The metrics of an evaluation as a few lines, and how many images have no part in them."""
    if isinstance(result, MulticlassEvaluation):
        _print_multiclass(result, contract)
    elif isinstance(result, BinaryEvaluation):
        _print_binary(result, contract)
    else:
        _print_multilabel(result)
    if result.unusable:
        num_unusable = len(result.unusable)
        print(f"not usable         {num_unusable} of {result.num_images + num_unusable} images, which are in no figure")


def _print_multiclass(result: MulticlassEvaluation, contract: Contract) -> None:
    print(f"images matched to classes by {result.matched_by}")
    width = max(len(c.name) for c in result.classes)
    for c in result.classes:
        print(f"  {c.name:<{width}}  class {c.index:>4}  {c.num_correct:>6} of {c.num_images}")
    wrong = sorted((pair for pair in result.confusion if pair[0] != pair[1]), key=lambda pair: -pair[2])
    for true, predicted, count in wrong[:_NUM_CONFUSIONS]:
        print(f"  {contract.label(true)} taken for {contract.label(predicted)}: {count}")
    print(f"top-1              {result.top1:.4f}  ({result.num_correct} of {result.num_images})")
    if result.threshold is not None:
        print(
            f"decided            {result.num_decided} of {result.num_images}, at {result.threshold:g} or above; right: "
            f"{result.num_decided_correct} of them"
        )
    if result.top5 is not None:
        print(f"top-5              {result.top5:.4f}")
    print(f"cross-entropy      {result.cross_entropy:.4f} nats")
    print(f"calibration error  {result.calibration_error:.4f}")


def _print_binary(result: BinaryEvaluation, contract: Contract) -> None:
    negative, positive = contract.label(0), contract.label(1)
    print(f"images matched to classes by {result.matched_by}; positive: {positive}, at {result.threshold:g} or above")
    print(f"  {negative}: {result.true_negatives} found, {result.false_positives} taken for {positive}")
    print(f"  {positive}: {result.true_positives} found, {result.false_negatives} taken for {negative}")
    for name in ("accuracy", "precision", "recall", "f1", "auroc"):
        print(f"{name:<18} {_figure(getattr(result, name))}")
    print(f"cross-entropy      {result.cross_entropy:.4f} nats")
    print(f"calibration error  {result.calibration_error:.4f}")


def _print_multilabel(result: MultilabelEvaluation) -> None:
    width = max(5, *(len(label.name) for label in result.labels))
    columns = ("precision", "recall", "f1", "auroc", "average_precision")
    print(f"{'label':<{width}}  images  " + "  ".join(f"{name[:9]:>9}" for name in columns))
    for label in result.labels:
        figures = "  ".join(f"{_figure(getattr(label, name)):>9}" for name in columns)
        print(f"{label.name:<{width}}  {label.num_positive:>6}  {figures}")
    for name in ("precision", "recall", "f1", "auroc"):
        print(f"{f'macro {name}':<23} {_figure(getattr(result, f'macro_{name}'))}")
    print(
        f"mean average precision  {_figure(result.mean_average_precision)}  "
        f"(over the {result.num_labels_with_images} of {len(result.labels)} labels that have images)"
    )
    print(f"exact match             {result.exact_match:.4f}  (of {result.num_images} images)")
    print(f"cross-entropy           {result.cross_entropy:.4f} nats")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
