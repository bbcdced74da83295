"""Write docs/reference.md: every option of both commands, as their parsers define them.

python tools/make_reference.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeport_export.parser import make_parser as export_parser
from edgeport_runtime.commands.arguments import Parser, value_of
from edgeport_runtime.commands.parser import make_parser as run_parser

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
INTRODUCTION = """\
# Reference

Every command and every option, as `-h` describes them on the command line. `tools/make_reference.py` writes this page
from the commands' parsers: change the help texts there, not here.

Exit statuses of both commands: 0 done, 1 error, 2 wrong usage, 3 parity or accuracy not met, 130 interrupted.
"""


def reference() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *_section(export_parser()), *_section(run_parser())]).rstrip() + "\n"


def _section(parser: Parser) -> list[str]:
    """A parser's usage and options, then the sections of its subcommands."""
    lines = [
        f"## {parser.prog}",
        "",
        f"{(parser.description or '').rstrip('.')}.",
        "",
        "```",
        parser.short_usage(),
        "```",
    ]
    tables: dict[str, list[str]] = {}
    commands: dict[str, Parser] = {}
    for group in parser._action_groups:
        is_named = group not in (parser._positionals, parser._optionals)
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                commands |= action.choices
            elif not isinstance(action, argparse._HelpAction):
                tables.setdefault(str(group.title) if is_named else "", []).append(_row(parser, action))
    for title, rows in tables.items():
        heading = [f"### {title.capitalize()}", ""] if title else []
        lines += ["", *heading, "| option | meaning |", "|---|---|", *rows]
    if parser.examples:
        lines += ["", "```", *parser.examples, "```"]
    return [*lines, "", *(line for command in commands.values() for line in _section(command))]


def _row(parser: Parser, action: argparse.Action) -> str:
    names = [f"{name} {value_of(action)}".rstrip() for name in action.option_strings[-1:]] or [value_of(action)]
    if len(action.option_strings) > 1:
        names = [*action.option_strings[:-1], *names]
    meaning = (action.help or "") % {**vars(action), "prog": parser.prog}
    cells = (", ".join(f"`{name}`" for name in names), f"{meaning}{_default(action, meaning)}".strip())
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(action: argparse.Action, meaning: str) -> str:
    """The parser's default, unless the help text names it."""
    if action.required or action.default in (None, False, argparse.SUPPRESS) or "default" in meaning.lower():
        return " Required." if action.required and action.option_strings else ""
    values = action.default if isinstance(action.default, list | tuple) else [action.default]
    return f" Default: {' '.join(map(str, values))}."


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    print(f"wrote {TARGET}")
