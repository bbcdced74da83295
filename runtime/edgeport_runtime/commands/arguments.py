"""What the arguments of both commands share: short errors with the nearest word, examples, versions, completion."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from edgeport_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Parser", "ShowVersion", "add_verbosity", "complete", "part", "value_of"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest word and its own short usage.

    Args:
        examples: command lines that its help ends with.
        start: what is shown where nothing is given; None where that is an error like others.
        options: as of ``argparse.ArgumentParser``.
    """

    def __init__(self, *, examples: Sequence[str] = (), start: str | None = None, **options: Any) -> None:
        epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)]) if examples else None
        super().__init__(
            epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )
        self.examples, self._start = tuple(examples), start
        self._commands: dict[str, Parser] = {}

    def short_usage(self) -> str:
        """The positional arguments and the options that are required, in a line."""
        needed = [action for action in self._actions if action.required and action.option_strings]
        words = [value_of(action) for action in self._actions if not action.option_strings]
        words += [f"{action.option_strings[0]} {value_of(action)}" for action in needed]
        return " ".join([self.prog, *words, "[OPTION ...]"])

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse; an unknown option is an error of the command that it was given to."""
        argv = list(sys.argv[1:] if args is None else args)
        if not argv and self._start is not None:
            self.exit(2, f"{self._start}\n")
        found, unknown = self.parse_known_args(argv, namespace)
        if unknown:
            command = self._commands.get(getattr(found, "command", ""), self)
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            known = [name for action in command._actions for name in action.option_strings]
            command.error(f"unknown: {' '.join(flags or unknown)}{_closest(flags, known)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print the error and the short usage, and exit with status 2."""
        self.exit(2, f"error: {message}\nusage: {self.short_usage()}   ({self.prog} --help shows all)\n")

    def add_subparsers(self, **options: Any) -> Any:
        """As of argparse; the commands are parsers of this kind."""
        found = super().add_subparsers(**options)
        self._commands = found.choices
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(action, f"{value!r} is unknown{_closest([str(value)], known) or _all(known)}")


class ShowVersion(argparse.Action):
    """Prints the versions of EdgePort and of what it runs on, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="Show the versions that are installed."
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Print one line."""
        from edgeport_runtime.engine.packages import DISTRIBUTIONS, versions_of

        versions = versions_of(("edgeport", *DISTRIBUTIONS, "torch"))
        sys.stdout.write(", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
        parser.exit()


def add_verbosity(parser: argparse.ArgumentParser, *, verbose: str) -> None:
    """Add ``--quiet`` and ``--verbose``, of which one can be given.

    Args:
        parser: of a command.
        verbose: what the latter shows, for its help.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="Show no progress, notes or warnings.")
    group.add_argument("--verbose", action="store_true", help=verbose)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line could go on, by argcomplete where it is installed."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ModuleNotFoundError:
        raise InputError("argcomplete is not installed; install it: pip install argcomplete") from None
    argcomplete.autocomplete(parser)


def part(text: str) -> float:
    """A number, or a fraction such as ``224/256``."""
    try:
        above, slash, below = text.partition("/")
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a fraction such as 224/256") from None


def value_of(action: argparse.Action) -> str:
    """What follows an option, or stands for a positional argument."""
    if action.nargs == 0:
        return ""
    name = str(
        action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    )
    return {"+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _closest(words: Iterable[str], known: Sequence[str]) -> str:
    found = dict.fromkeys(match for word in words for match in difflib.get_close_matches(word, known, n=1))
    return f"; did you mean {' and '.join(found)}?" if found else ""


def _all(known: Sequence[str]) -> str:
    return f"; choose from {', '.join(known)}"
