"""Write docs/troubleshooting.md: every refusal of the export with its remedy, read from the source that raises it.

python tools/make_troubleshooting.py

A message says what happened and then, after a semicolon, what to do. Where a message has no such part, REMEDIES has it;
where that part says something else, INSTEAD.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

from troubleshooting_remedies import INSTEAD, REMEDIES

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "troubleshooting.md"
INTRODUCTION = """\
# Troubleshooting the export

What `export-model` and `edgeport_export.export` refuse, and what to do. `…` stands for names, numbers and lines of
your own. A refused export leaves nothing on disk. Exit statuses: 1 error, 2 wrong usage, 3 parity or accuracy not met.

`tools/make_troubleshooting.py` writes this page from the messages in the source: change them there, and what they lack
in `tools/troubleshooting_remedies.py`.
"""
SECTIONS = (
    (
        "Your own module",
        ("source/user_module", "source/unwrap", "source/own_", "parity/rows", "parity/reference"),
    ),
    ("Tracing and graph passes", ("graph/",)),
    ("Comparison with PyTorch", ("parity/",)),
    (
        "Options, labels and files beside the weights",
        ("config", "source/", "cli", "pipeline", "stages", "edgeport_runtime/bundle/"),
    ),
    ("Images", ("edgeport_runtime/pixels/", "edgeport_runtime/accuracy/")),
    ("Weights", ("edgeport_models/", "edgeport_runtime/hub")),
    ("Quantized variants", ("quantize/", "variants")),
    ("The bundle", ("bundle/",)),
)
SOURCES = (
    "export/edgeport_export",
    "models/edgeport_models",
    *(
        f"runtime/edgeport_runtime/{name}"
        for name in ("pixels", "bundle/contract.py", "accuracy/dataset.py", "accuracy/matching.py", "hub.py")
    ),
)
_BLANK = "…"
_PARTS = {"_remedy", "_reshape", "_refusal", "_explain"}  # functions whose results are parts of messages


class Refusal(NamedTuple):
    """A message, and what to do."""

    message: str
    remedy: str


def refusals() -> dict[str, list[Refusal]]:
    """By section, in the order of the source."""
    found: dict[str, list[Refusal]] = {title: [] for title, _ in SECTIONS}
    files = [
        file for place in map(ROOT.joinpath, SOURCES) for file in (place.rglob("*.py") if place.is_dir() else [place])
    ]
    for path in sorted(files):
        if "templates" in path.parts:
            continue
        place = path.relative_to(ROOT).as_posix()
        for root in ("export/edgeport_export/", "models/", "runtime/"):
            place = place.removeprefix(root)
        title = next((title for title, places in SECTIONS if place.startswith(places)), SECTIONS[-1][0])
        for message in _messages(ast.parse(path.read_text(encoding="utf-8"))):
            refusal = _split(message)
            if refusal not in found[title]:
                found[title].append(refusal)
    return found


def page() -> str:
    """The page."""
    lines = [INTRODUCTION]
    for title, rows in refusals().items():
        lines += [f"## {title}", "", "| message | what to do |", "|---|---|"]
        lines += [f"| {_cell(row.message)} | {row.remedy.replace('|', chr(92) + '|')} |" for row in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def without_remedy() -> list[str]:
    """Messages that say nothing of what to do, and are not in REMEDIES."""
    return [row.message for rows in refusals().values() for row in rows if not row.remedy]


def _split(message: str) -> Refusal:
    what, _, remedy = message.partition("; ")
    instead = next((text for part, text in INSTEAD.items() if part in message), None)
    if instead is not None:
        return Refusal(what, instead)
    if re.search("[a-z]{3}", remedy):
        first = remedy.split()[0]
        return Refusal(what, f"{remedy[:1].upper() if first.isalpha() else remedy[:1]}{remedy[1:]}.")
    return Refusal(what, next((text for part, text in REMEDIES.items() if part in message), ""))


def _cell(message: str) -> str:
    return "`" + message.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def _messages(tree: ast.Module) -> list[str]:
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    messages = []
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else None
        if isinstance(call, ast.Call) and call.args and isinstance(call.func, ast.Name) and _is_ours(call.func.id):
            messages += [
                text for text in (_tidy(one) for one in _texts(call.args[0], functions)) if re.search("[a-z]{3}", text)
            ]
    return messages


def _is_ours(name: str) -> bool:
    from edgeport_runtime import errors

    return name in vars(errors) and name.endswith("Error")


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """What an expression can be as text, with a blank for whatever is known only when it runs."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        texts = [""]
        for part in node.values:
            texts = [text + more for text in texts for more in _texts(part, functions)]
        return texts
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, functions) if isinstance(node.value, ast.Call) else [_BLANK]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in _texts(node.left, functions) for b in _texts(node.right, functions)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _PARTS & set(functions):
        returned = [one.value for one in ast.walk(functions[node.func.id]) if isinstance(one, ast.Return) and one.value]
        texts = [text for value in returned for text in _texts(value, functions)]
        return [text for text in texts if text != "None"]
    return [_BLANK]


def _tidy(text: str) -> str:
    return re.sub(rf"{_BLANK}(?:\s?{_BLANK})+", _BLANK, " ".join(text.split()))


if __name__ == "__main__":
    lacking = without_remedy()
    if lacking:
        sys.exit("these messages say nothing of what to do; mend them, or add REMEDIES:\n" + "\n".join(lacking))
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET}")
