"""The command ``run-model``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgeport_runtime.commands.console import DONE, ERROR, PARITY, run_command
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgeport_runtime.bundle.contract import Contract
    from edgeport_runtime.classifier import Classifier, StreamResult

__all__ = ["main"]

_STREAM_FROM = 16
_TUNE = "Find the fastest variant, device and number of threads on this machine, and use them from now on."
_BENCH = "Time the variants on devices of this machine, in turn, with their memory and their time to start."
_WEB = "Write a static page that runs a bundle in the browser."
_DOCTOR = "Show the packages, devices, instructions and threads of this machine, and what is wrong with them."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    return run_command(lambda: command(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run-model", description="Run a bundle that export-model made, without PyTorch.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        sub.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote, or one of its .onnx files.")
        sub.add_argument(
            "--variant",
            default="auto",
            metavar="NAME",
            help="Variant to run. Default: the fastest one measured here, otherwise fp32.",
        )
        sub.add_argument(
            "--device",
            default="auto",
            metavar="NAME",
            help="Device to run on: auto (default), cpu, cuda, openvino, ...; doctor lists them all.",
        )
        sub.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
        return sub

    predict = add("predict", _predict, "Classify images.")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="Image files, or folders of them.")
    predict.add_argument("--top-k", type=_positive, default=5, metavar="K", help="Classes to print (default 5).")
    evaluate = add("evaluate", _evaluate, "Measure a model on labelled images.")
    evaluate.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="Labelled images: one folder per class, or a CSV with the columns path,labels.",
    )
    add("verify", _verify, "Run the golden images on this device and compare the outputs with PyTorch's.")
    info = add("info", _info, "Show what the bundle's manifest says.")
    info.add_argument("--assignment", action="store_true", help="Load the bundle and show what runs where, and why.")
    _add_machine_commands(commands)
    return parser


def _add_machine_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Those that are about this machine, or write for another."""
    tune = commands.add_parser("tune", help=_TUNE, description=_TUNE, allow_abbrev=False)
    tune.set_defaults(command=_tune)
    tune.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    tune.add_argument("--batch", type=_positive, default=1, metavar="N", help="Images per call (default 1).")
    tune.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
    bench = commands.add_parser("bench", help=_BENCH, description=_BENCH, allow_abbrev=False)
    bench.set_defaults(command=_bench)
    bench.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model wrote.")
    bench.add_argument("--variant", nargs="+", metavar="NAME", help="Variants to time (default: all).")
    bench.add_argument(
        "--device", nargs="+", default=["auto"], metavar="NAME", help="Devices to time them on (default auto)."
    )
    bench.add_argument(
        "--batch", nargs="+", type=_positive, default=[1, 8], metavar="N", help="Batch sizes to time (default 1 8)."
    )
    bench.add_argument(
        "--rounds", type=_positive, default=10, metavar="N", help="Turns of each, with 3 calls per turn (default 10)."
    )
    bench.add_argument("--plot", metavar="FILE", help="Also write a bar chart (SVG) to FILE.")
    bench.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
    web = commands.add_parser("web", help=_WEB, description=_WEB, allow_abbrev=False)
    web.set_defaults(command=_web)
    web.add_argument("bundle", metavar="BUNDLE", help="Folder that export-model --preprocess in-graph wrote.")
    web.add_argument("-o", "--output", required=True, metavar="DIR", help="Folder to write the page to.")
    web.add_argument("--variant", default="fp32", metavar="NAME", help="Variant that the page runs (default fp32).")
    web.add_argument(
        "--onnxruntime-web",
        default="node_modules/onnxruntime-web",
        metavar="DIR",
        help="Folder of the npm package onnxruntime-web (default node_modules/onnxruntime-web).",
    )
    doctor = commands.add_parser("doctor", help=_DOCTOR, description=_DOCTOR, allow_abbrev=False)
    doctor.set_defaults(command=_doctor)
    doctor.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _predict(args: argparse.Namespace) -> int:
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.report import print_predictions

    images = _expand(args.images)
    is_counted = len(images) > 1 and sys.stderr.isatty() and not sys.stdout.isatty()
    results: list[dict[str, Any]] = []
    with Classifier.load(args.bundle, variant=args.variant, device=args.device, spin=False) as classifier:
        for image, predictions, error in _classify(classifier, images, args.top_k):
            if predictions is None:
                # One bad image must not cost the others their result; the exit status tells.
                print(f"error: {error}", file=sys.stderr)
                results.append({"image": image, "error": str(error)})
            else:
                results.append({"image": image, "predictions": [asdict(p) for p in predictions]})
                if not args.json:
                    print_predictions(str(image), predictions, classifier.contract)
            if is_counted:
                _show_count(len(results), len(images))
        if not args.json and classifier.variant is not None:
            print(f"by {classifier.variant.name} on {classifier.device}")
    if args.json:
        _print_json(results)
    return ERROR if any("error" in result for result in results) else DONE


def _expand(paths: list[str]) -> list[str]:
    """Files as they are, and the images of folders."""
    from pathlib import Path

    from edgeport_runtime.pixels.decode import find_images

    return [name for path in paths for name in (map(str, find_images(path)) if Path(path).is_dir() else [path])]


def _classify(classifier: Classifier, images: list[str], top_k: int) -> Iterable[StreamResult]:
    """A stream, except for a few images, for which starting threads and a second session would take longer."""
    from edgeport_runtime.classifier import StreamResult

    if len(images) >= _STREAM_FROM:
        yield from classifier.stream(images, top_k=top_k)
        return
    for image in images:
        try:
            yield StreamResult(image, classifier.predict(image, top_k), None)
        except InputError as error:
            yield StreamResult(image, None, error)


def _evaluate(args: argparse.Namespace) -> int:
    from edgeport_runtime.accuracy.evaluate import evaluate
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.report import print_evaluation

    with Classifier.load(args.bundle, variant=args.variant, device=args.device) as classifier:
        result = evaluate(classifier, args.data, on_progress=_show_count if sys.stderr.isatty() else None)
        if args.json:
            _print_json({"variant": _variant_name(classifier), "device": classifier.device, **result.to_dict()})
        else:
            print_evaluation(result, classifier.contract)
            if classifier.variant is not None:
                print(f"by {classifier.variant.name} on {classifier.device}")
    return DONE


def _show_count(done: int, total: int, what: str = "images") -> None:
    sys.stderr.write(f"\r{done}/{total} {what}" + ("\n" if done == total else ""))
    sys.stderr.flush()


def _verify(args: argparse.Namespace) -> int:
    from edgeport_runtime.commands.verify import verify

    report = verify(args.bundle, variant=args.variant, device=args.device)
    if args.json:
        _print_json(report.to_dict())
    else:
        print(
            f"{report.variant} on {report.device}: {report.num_images} golden images, relative L2 "
            f"{report.relative_l2:.2e} (at most {report.tolerance:.1e}), "
            f"same decision on {report.num_equal}: {'passed' if report.passed else 'FAILED'}"
        )
    return DONE if report.passed else PARITY


def _info(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import load_manifest

    if args.assignment:
        return _assignment(args)
    for option in ("device", "variant"):
        if getattr(args, option) != "auto":
            raise InputError(f"--{option} requires --assignment: without it info loads no model")
    if Path(args.bundle).is_file():
        return _info_of_file(args)
    manifest = load_manifest(args.bundle)
    if args.json:
        _print_json(manifest.to_dict())
        return DONE
    architecture, weights, contract = manifest.architecture, manifest.weights, manifest.contract
    print(
        f"architecture   {architecture['name']} ({architecture['num_params']:,} parameters; {architecture['source']})"
    )
    if architecture["options"]:
        print("options        " + ", ".join(f"{name} {value}" for name, value in architecture["options"].items()))
    print("weights        " + "; ".join(str(weights[key]) for key in ("file", "note") if key in weights))
    _print_contract(contract)
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
    return DONE


def _assignment(args: argparse.Namespace) -> int:
    from edgeport_runtime.classifier import Classifier

    with Classifier.load(args.bundle, device=args.device, variant=args.variant) as classifier:
        told = classifier.explain()
    if args.json:
        _print_json(told)
        return DONE
    print(f"{told['variant'] or args.bundle} on {told['device']}, executed in {told['precision']}")
    for reason in told["reasons"]:
        print(f"  {reason}")
    for name, counts in (told["assignment"] or {}).items():
        operators = ", ".join(f"{count} {operator}" for operator, count in counts.items())
        print(f"{name}: {sum(counts.values())} nodes ({operators})")
    if told["assignment"] is None:
        print("this onnxruntime does not report which node runs where; install onnxruntime>=1.24")
    return DONE


def _tune(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.tuning.tune import tune

    show = (lambda done, total: _show_count(done, total, "contenders")) if sys.stderr.isatty() else None
    findings, file = tune(Path(args.bundle), batch=args.batch, on_progress=show)
    if args.json:
        _print_json({**findings, "file": None if file is None else str(file)})
        return DONE
    for entry in findings["contenders"]:
        print(f"{entry['latency_ms']:10.3f} ms  {_contender(entry)}")
    for name, reason in findings["excluded"].items():
        print(f"         -     {name}: {reason}")
    print(f"fastest at batch {findings['batch']}: {_contender(findings['winner'])}")
    if findings["prepared"] is not None:
        kept = findings["prepared"]
        print(
            f"prepared: loads in {kept['prepared_ms']} ms instead of {kept['load_ms']}; "
            f"{kept['size_bytes'] / 1e6:.0f} MB in the cache folder"
        )
    if file is None:
        print("not saved: the cache folder is not writable; set EDGEPORT_CACHE to one that is", file=sys.stderr)
    return DONE


def _bench(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.commands.report import print_benchmark
    from edgeport_runtime.tuning.bench import bench, plot

    if args.plot is not None and not Path(args.plot).absolute().parent.is_dir():
        raise InputError(f"--plot: the folder of {args.plot} does not exist")
    show = (lambda done, total: _show_count(done, total, "turns")) if sys.stderr.isatty() else None
    result = bench(
        Path(args.bundle),
        variants=args.variant,
        devices=args.device,
        batches=args.batch,
        rounds=args.rounds,
        on_progress=show,
    )
    if args.plot is not None:
        Path(args.plot).write_text(plot(result, Path(args.bundle).absolute().name), encoding="utf-8")
    if args.json:
        _print_json(result)
    else:
        print_benchmark(result)
    return DONE


def _contender(entry: dict[str, Any]) -> str:
    threads = entry["threads"]
    count = "" if threads is None else f", {threads} thread{'' if threads == 1 else 's'}"
    return f"{entry['variant']} on {entry['device']}{count}"


def _web(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.commands.web import make_site

    output = Path(args.output)
    size = make_site(Path(args.bundle), output, variant=args.variant, engine=Path(args.onnxruntime_web))
    print(f"wrote {output} ({size / 1e6:.0f} MB); serve it, for example: python -m http.server -d {output}")
    return DONE


def _doctor(args: argparse.Namespace) -> int:
    from edgeport_runtime.commands.doctor import diagnose
    from edgeport_runtime.commands.report import print_diagnosis

    diagnosis = diagnose()
    if args.json:
        _print_json(diagnosis)
    else:
        print_diagnosis(diagnosis)
    return ERROR if diagnosis["problems"] else DONE


def _info_of_file(args: argparse.Namespace) -> int:
    from edgeport_runtime.classifier import Classifier

    with Classifier.load(args.bundle) as classifier:
        contract = classifier.contract
    if args.json:
        _print_json({"contract": contract.to_dict()})
    else:
        _print_contract(contract)
    return DONE


def _print_contract(contract: Contract) -> None:
    from edgeport_runtime.commands.report import describe_input

    labels = contract.labels
    names = "not known" if labels is None else ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    print(f"task           {contract.task}, {contract.num_classes} classes; labels: {names}")
    if contract.thresholds is not None:
        print(f"thresholds     {', '.join(map(str, contract.thresholds))}")
    print(f"output         {contract.output}")
    print(f"input          {describe_input(contract)}")


def _variant_name(classifier: Classifier) -> str | None:
    return None if classifier.variant is None else classifier.variant.name


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
