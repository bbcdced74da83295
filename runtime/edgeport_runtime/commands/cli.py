"""The command ``run-model``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgeport_runtime.commands.arguments import complete
from edgeport_runtime.commands.console import DONE, ERROR, PARITY, run_command
from edgeport_runtime.commands.inputs import check_order, contract_of, expand
from edgeport_runtime.commands.parser import make_parser
from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.outputs.predictions import StreamResult

__all__ = ["main"]

_STREAM_FROM = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = make_parser()
    complete(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args), is_quiet=getattr(args, "quiet", False))


def _run(args: argparse.Namespace) -> int:
    from edgeport_runtime.hub import is_address

    if is_address(getattr(args, "bundle", None)) and args.command not in _TAKE_ADDRESSES:
        from edgeport_runtime.loading.remote import bring_bundle

        args.bundle = str(bring_bundle(args.bundle))
    return _COMMANDS[args.command](args)


def _predict(args: argparse.Namespace) -> int:
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.report import print_predictions

    check_order(args)
    images, left_out = expand(args.images)
    show = None if len(images) == 1 or sys.stdout.isatty() else _progress(args)
    results: list[dict[str, Any]] = []
    contract = contract_of(args)
    with Classifier.load(
        args.bundle, variant=args.variant, device=args.device, spin=False, contract=contract
    ) as classifier:
        _tell_choice(args, classifier.explain())
        for image, predictions, error in _classify(classifier, images, args.top_k):
            if predictions is None:
                # One bad image must not cost the others their result; the exit status tells.
                print(f"error: {error}", file=sys.stderr)
                results.append({"image": image, "error": str(error)})
            else:
                results.append({"image": image, "predictions": [asdict(p) for p in predictions]})
                if not args.json:
                    print_predictions(str(image), predictions, classifier.contract)
            if show is not None:
                show(len(results), len(images))
        if not args.json and any("predictions" in result for result in results):
            _print_what_ran(classifier)
    if args.json:
        _print_json(results)
    _tell_left_out(args, left_out)
    return ERROR if any("error" in result for result in results) else DONE


def _tell_choice(args: argparse.Namespace, told: Mapping[str, Any]) -> None:
    if args.verbose:
        print(f"{told['variant'] or 'the model'} on {told['device']}, executed in {told['precision']}", file=sys.stderr)
        for reason in told["reasons"]:
            print(f"  {reason}", file=sys.stderr)


def _tell_left_out(args: argparse.Namespace, left_out: Mapping[str, int]) -> None:
    from edgeport_runtime.pixels.formats import describe_left_out

    if left_out and not args.quiet:
        print(f"note: {describe_left_out(left_out)}", file=sys.stderr)


def _classify(classifier: Classifier, images: list[str], top_k: int) -> Iterable[StreamResult]:
    """A stream, except for a few images, for which starting threads and a second session would take longer."""
    from edgeport_runtime.outputs.predictions import StreamResult

    if len(images) >= _STREAM_FROM:
        yield from classifier.stream(images, top_k=top_k)
        return
    for image in images:
        try:
            yield StreamResult(image, classifier.predict(image, top_k), None)
        except InputError as error:
            yield StreamResult(image, None, error)


def _heatmap(args: argparse.Namespace) -> int:
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.heatmap import check_output, heatmap_of_each
    from edgeport_runtime.commands.report import print_heatmap

    check_order(args)
    if args.output is None and not args.json:
        raise InputError("give the picture to write with -o heat.png, or --json")
    images, left_out = expand(args.images)
    check_output(args.output)
    results = []
    with Classifier.load(args.bundle, variant=args.variant, device=args.device, spin=False) as classifier:
        _tell_choice(args, classifier.explain())
        for result in heatmap_of_each(
            classifier,
            images,
            label=args.label,
            method=args.method,
            output=args.output,
            on_progress=_progress(args, "places"),
        ):
            results.append(result)
            if "error" in result:
                print(f"error: {result['error']}", file=sys.stderr)
            elif not args.json:
                print_heatmap(result)
        if not args.json and any("error" not in result for result in results):
            _print_what_ran(classifier)
    if args.json:
        _print_json(results)
    _tell_left_out(args, left_out)
    return ERROR if any("error" in result for result in results) else DONE


def _evaluate(args: argparse.Namespace) -> int:
    from edgeport_runtime.accuracy.evaluate import evaluate
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.report import print_evaluation

    contract = contract_of(args)
    with Classifier.load(args.bundle, variant=args.variant, device=args.device, contract=contract) as classifier:
        _tell_choice(args, classifier.explain())
        result = evaluate(classifier, args.data, match=args.match, on_progress=_progress(args))
        for unusable in result.unusable:
            print(f"error: {unusable.error}", file=sys.stderr)
        if args.json:
            _print_json({"variant": _variant_name(classifier), "device": classifier.device, **result.to_dict()})
        else:
            print_evaluation(result, classifier.contract)
            _print_what_ran(classifier)
    _tell_left_out(args, result.left_out)
    return ERROR if result.unusable else DONE


def _compare(args: argparse.Namespace) -> int:
    from edgeport_runtime.commands.compare import compare_models, write_flips
    from edgeport_runtime.commands.pages import check_output, comparison_page
    from edgeport_runtime.commands.report import print_comparison
    from edgeport_runtime.report.drawing import require_altair

    given = {"csv": args.csv, "output": args.output}
    files = {name: check_output(file, name) for name, file in given.items() if file is not None}
    if "output" in files:
        require_altair()  # before minutes of work
    found = compare_models(
        args.a,
        args.b,
        variant=args.variant,
        devices=args.device,
        data=args.data,
        match=args.match,
        on_progress=_progress(args),
    )
    comparison = found.comparison
    if "csv" in files:
        write_flips(comparison, files["csv"])
    if "output" in files:
        files["output"].write_text(comparison_page(found, has_thumbnails=args.thumbnails), encoding="utf-8")
    for unusable in comparison.unusable:
        print(f"error: {unusable.error}", file=sys.stderr)
    if found.note is not None and not args.quiet:
        print(f"note: {found.note}", file=sys.stderr)
    if args.json:
        _print_json(found.to_dict())
    else:
        print_comparison(found)
    if args.min_agreement is not None and comparison.agreement < args.min_agreement:
        print(
            f"error: the decisions agree on {comparison.agreement:.2%} of the images, less than the "
            f"{args.min_agreement:.2%} of --min-agreement",
            file=sys.stderr,
        )
        return PARITY
    return ERROR if comparison.unusable else DONE


def _progress(args: argparse.Namespace, what: str = "images") -> Callable[[int, int], None] | None:
    """What shows a long command's progress on a terminal; None elsewhere, and where nobody wants it."""
    if not sys.stderr.isatty() or args.quiet:
        return None
    return lambda done, total: _show_count(done, total, what)


def _show_count(done: int, total: int, what: str) -> None:
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
        if report.problem is not None:
            print(f"wrong answer: {report.problem}")
    return DONE if report.passed else PARITY


def _info(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import load_manifest
    from edgeport_runtime.classifier import Classifier
    from edgeport_runtime.commands.report import print_assignment, print_contract, print_manifest
    from edgeport_runtime.hub import is_address

    if args.assignment:
        with Classifier.load(args.bundle, device=args.device, variant=args.variant) as classifier:
            told = classifier.explain()
        return _show(args, told, lambda: print_assignment(told, args.bundle))
    for option in ("device", "variant"):
        if getattr(args, option) != "auto":
            raise InputError(f"--{option} requires --assignment: without it info loads no model")
    if Path(args.bundle).is_file():
        with Classifier.load(args.bundle) as classifier:
            contract = classifier.contract
        return _show(args, {"contract": contract.to_dict()}, lambda: print_contract(contract))
    if is_address(args.bundle):
        from edgeport_runtime.loading.remote import RemoteBundle

        manifest = RemoteBundle(args.bundle).manifest
    else:
        manifest = load_manifest(args.bundle)
    return _show(args, manifest.to_dict(), lambda: print_manifest(manifest))


def _show(args: argparse.Namespace, document: Any, as_text: Callable[[], None]) -> int:
    if args.json:
        _print_json(document)
    else:
        as_text()
    return DONE


def _tune(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.tuning.tune import tune

    findings, file = tune(Path(args.bundle), batch=args.batch, on_progress=_progress(args, "contenders"))
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

    from edgeport_runtime.commands.pages import check_output
    from edgeport_runtime.commands.report import print_benchmark
    from edgeport_runtime.report.drawing import require_altair, standalone
    from edgeport_runtime.report.plots import benchmark_plot
    from edgeport_runtime.tuning.bench import bench

    if args.plot is not None:
        check_output(args.plot, "plot")
        require_altair()  # before minutes of work
    result = bench(
        Path(args.bundle),
        variants=args.variant,
        devices=args.device,
        batches=args.batch,
        rounds=args.rounds,
        on_progress=_progress(args, "turns"),
    )
    if args.plot is not None:
        chart = benchmark_plot(result, Path(args.bundle).absolute().name)
        Path(args.plot).write_text(standalone(chart), encoding="utf-8")
    if args.json:
        _print_json(result)
    else:
        print_benchmark(result)
    return DONE


def _report(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.commands.pages import check_output, make_page

    output = check_output(args.output, "output")
    document = make_page(
        Path(args.bundle),
        output,
        device=args.device,
        data=args.data,
        match=args.match,
        has_thumbnails=args.thumbnails,
        on_progress=_progress(args),
    )
    return _show(args, document, lambda: print(f"{document['verdict'][0]}\nwrote {output}"))


def _contender(entry: dict[str, Any]) -> str:
    from edgeport_runtime.loading.cache import Tuned

    return str(Tuned(variant=entry["variant"], device=entry["device"], threads=entry["threads"]))


def _web(args: argparse.Namespace) -> int:
    from contextlib import ExitStack, suppress
    from pathlib import Path

    from edgeport_runtime.commands.web import make_site, site_server

    output, engine = Path(args.output), Path(args.onnxruntime_web)
    with ExitStack() as stack:
        server = None if args.serve is None else stack.enter_context(site_server(output, args.serve))
        size = make_site(Path(args.bundle), output, variant=args.variant, engine=engine, title=args.title)
        url = None if server is None else f"http://127.0.0.1:{server.server_port}/"
        if args.json:
            _print_json({"site": str(output), "size_bytes": size, "url": url})
        else:
            how = f"python -m http.server -d {shlex.quote(str(output))}"
            told = f"serve it, for example: {how}" if url is None else f"open {url} (Ctrl-C ends)"
            print(f"wrote {output} ({size / 1e6:.0f} MB); {told}")
        if server is not None:
            sys.stdout.flush()
            with suppress(KeyboardInterrupt):  # which is how it ends
                server.serve_forever()
    return DONE


def _push(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.commands.push import push

    pushed = push(Path(args.bundle), args.address, thumbnails=args.thumbnails, private=args.private)
    for note in pushed.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        _print_json(pushed._asdict())
    else:
        print(f"pushed {len(pushed.files)} files to {pushed.address}: {pushed.url}")
    return DONE


def _inspect(args: argparse.Namespace) -> int:
    from pathlib import Path

    from edgeport_runtime.commands.inspection import inspect, print_inspection

    found = inspect(Path(args.model), variant=args.variant, target=args.target)
    if args.json:
        _print_json(found)
    else:
        print_inspection(found)
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


def _print_what_ran(classifier: Classifier) -> None:
    manifest = classifier.manifest
    if manifest is not None:
        is_random = manifest.weights["source"] == "random"
        note = "; its weights are random: these answers mean nothing" if is_random else ""
        print(f"by {_variant_name(classifier)} on {classifier.device}{note}")


def _variant_name(classifier: Classifier) -> str | None:
    return None if classifier.variant is None else classifier.variant.name


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "predict": _predict,
    "heatmap": _heatmap,
    "evaluate": _evaluate,
    "compare": _compare,
    "verify": _verify,
    "info": _info,
    "report": _report,
    "tune": _tune,
    "bench": _bench,
    "web": _web,
    "push": _push,
    "inspect": _inspect,
    "doctor": _doctor,
}
_TAKE_ADDRESSES = ("predict", "evaluate", "info")  # which do not need the whole bundle
