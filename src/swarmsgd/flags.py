"""Command-line options made from settings: an option is a field, its help the docstring there, and
what it can be comes from its table. Nothing is listed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from swarmsgd.checks import choices_of, closest
from swarmsgd.errors import ConfigError
from swarmsgd.settings.options import Option


def parse_options(parser: Parser, parts: Mapping[str, Mapping[str, Option]]) -> dict[str, Any]:
    """Name -> value, of those options that the arguments give; `parts` are groups of options."""
    for title, options in parts.items():
        add(parser.add_argument_group(title), options.values())
    given = vars(parser.parse())
    found = {name: option for options in parts.values() for name, option in options.items()}
    return {name: read_options(found[name], value) for name, value in given.items()}


def add(group: Any, options: Iterable[Option]) -> None:
    """Add options. Parsing leaves out those that are not given; `read_options` reads the others."""
    for option in options:
        shape: dict[str, Any] = {"metavar": option.metavar}
        if option.kinds == (bool,):
            shape = {"action": argparse.BooleanOptionalAction if option.default else "store_true"}
        elif tuple in option.kinds:
            shape = {"metavar": "TEXT", "nargs": "*"}
        default = "" if option.kinds == (bool,) else f" (default: {option.shown_default})"
        group.add_argument(
            flag(option.name),
            default=argparse.SUPPRESS,
            help=f"{option.help}{default}".replace("%", "%%"),
            **shape,
        )


def read_options(option: Option, value: Any) -> Any:
    """What argparse has found, as what the option holds. Raises ConfigError."""
    return option.read_text(value) if isinstance(value, str) else option.read(value)


def flag(name: str) -> str:
    """`--local-steps` for local_steps."""
    return f"--{name.replace('_', '-')}"


def choices(parts: Mapping[str, Mapping[str, Option]]) -> str:
    """For each option that is a choice from a table: what there is to choose, as help."""
    blocks: list[str] = []
    for options in parts.values():
        for option in (o for o in options.values() if o.table is not None):
            lines = choices_of(option.table or {})
            width = max(len(name) for name, _ in lines)
            blocks.append(f"{flag(option.name)}:")
            blocks += [f"  {name:<{width}}  {text}" for name, text in lines]
    return "\n".join(blocks) + "\n"


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of its epilog. For an option that does not exist it raises a
    ConfigError that names the most similar one.
    """

    def __init__(self, command: str, arguments: Sequence[str], **about: Any) -> None:
        super().__init__(
            prog=f"swarmsgd {command}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **about,
        )
        self._arguments = list(arguments)

    def parse(self) -> argparse.Namespace:
        """The values. SystemExit after --help, and for values that are missing."""
        given, left = self.parse_known_args(self._arguments)
        if left:
            raise self._unknown(next((word for word in left if word.startswith("-")), left[0]))
        return given

    def error(self, message: str) -> NoReturn:
        """A misspelt option is the reason why another one is missing: it is told instead."""
        known = {flag: action for action in self._actions for flag in action.option_strings}
        words = iter(self._arguments)
        for word in words:
            name, equals, _ = word.partition("=")
            if not word.startswith("-") or word == "--":
                break  # from here on the words may be somebody else's
            if name not in known and not (word[1:2].isdigit() or known.get(word[:2])):
                raise self._unknown(name)
            action = known.get(name)
            if action is not None and action.nargs is None and not equals:
                next(words, None)
        super().error(message)

    def _unknown(self, what: str) -> ConfigError:
        known = [flag for action in self._actions for flag in action.option_strings]
        hint = closest(what, known) if what.startswith("-") else ""
        return ConfigError(
            f"there is no option {what!r}{hint}; `{self.prog} --help` lists what there is"
        )
