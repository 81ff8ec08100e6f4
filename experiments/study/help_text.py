"""What --help and --recipes print: a script's own flags first, the recipe's values, and all recipes as a table."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import NoReturn, get_args, get_origin, get_type_hints

from simple_parsing import ArgumentParser, DashVariant, SimpleHelpFormatter

from experiments.study.endings import fail
from normshift.registry import NORMS

BY_RECIPE = re.compile(r"\b(by\s+default)\s+the\s+recipe's(?=[.;]|$)", re.IGNORECASE)
"""In help texts; the recipe's value follows it."""
WIDTH = 140
"""Characters of a line of the table of recipes."""


class HelpFormatter(SimpleHelpFormatter):
    """Flags as they are written, `--gpus int` or `--keep-best`, and defaults in words or not at all."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)  # names and files stay whole

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not _is_switch(action):
            return super()._format_action_invocation(action)
        return " | ".join(action.option_strings if action.default else action.option_strings[:1])

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").removesuffix(" (default: %(default)s)")  # simple_parsing says it of switches
        if action.default in (None, "", False, argparse.SUPPRESS) or action.default == []:
            return text
        if action.default is True:
            return f"{text} (default: yes)"
        several = isinstance(action.default, (list, tuple))
        return f"{text} (default: {' '.join(map(str, action.default)) if several else '%(default)s'})"


def _is_switch(action: argparse.Action) -> bool:
    return isinstance(action.default, bool)


class Parser(ArgumentParser):
    """Reads a dataclass of flags, and tells a wrong one in one sentence.

    Args:
        flags: the dataclass. recipe: name and values of the recipe of which --help tells.
    """

    def __init__(self, flags: type, doc: str, recipe: tuple[str, object] | None = None):
        super().__init__(
            description=doc,
            add_option_string_dash_variants=DashVariant.DASH,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.flags, self.recipe, self.grouped = flags, recipe, False

    def format_help(self) -> str:
        values, hints = _values(self.recipe[1]) if self.recipe else {}, get_type_hints(self.flags)
        if not self.grouped:
            self._group()
        for action in self._actions:  # help texts say NORMS, so that a new norm's name needs no edit here
            action.help = (action.help or "").replace("NORMS", " ".join(NORMS))
            name = action.dest.rpartition(".")[2]
            if action.option_strings and name in hints and action.const is None:
                action.metavar = in_words(hints[name])
            if action.default in (None, []) and name in values:
                action.help = with_value(action.help, values[name], self.recipe[0])
        named = [action.metavar for action in self._actions if not action.option_strings and action.metavar]
        self.usage = " ".join(["%(prog)s", *named, "[flags]"])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        fail(f"{message} ({self.prog} --help lists the flags)")

    def _group(self) -> None:
        """Put the flags into a group for each class that declares them, the script's own first."""
        self.grouped, kinds = True, [kind for kind in self.flags.__mro__ if dataclasses.is_dataclass(kind)]
        owners = {name: kind for kind in reversed(kinds) for name in inspect.get_annotations(kind)}
        by_kind: dict[type, list] = {kind: [] for kind in kinds}
        for group in self._action_groups[:]:
            own = [action for action in group._group_actions if action.dest.rpartition(".")[2] in owners]
            for action in own:
                by_kind[owners[action.dest.rpartition(".")[2]]].append(action)
                group._group_actions.remove(action)
        others = [group for group in self._action_groups if group._group_actions]
        self._action_groups.clear()
        for kind, actions in by_kind.items():
            title = (inspect.getdoc(kind) or "flags").splitlines()[0].rstrip(".")
            self.add_argument_group(title[0].lower() + title[1:])._group_actions.extend(actions)
        self._action_groups.extend(others)


def with_value(text: str, value: object, recipe: str) -> str:
    """A help text with the value of a recipe, where it says "by default the recipe's" or at its end."""
    said = f"the recipe's, {shown(value)} in {recipe}".replace("%", "%%")
    if BY_RECIPE.search(text):
        return BY_RECIPE.sub(lambda found: f"{found[1]} {said}", text)
    return f"{text} (default: {said})"


def in_words(kind: object) -> str:
    """What a flag takes, by its type: int, str ..., int int."""
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not type(None)]
    if origin is list:
        return f"{in_words(parts[0])} ..."
    return " ".join(map(in_words, parts)) if parts else getattr(kind, "__name__", str(kind))


def shown(value: object) -> str:
    """A recipe's value: 0.1, none, yes, 768 768."""
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={shown(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(recipe: object) -> dict[str, object]:
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}


def recipes_table(recipes: Mapping[str, object]) -> str:
    """All recipes with every value: a row for each value, a column for each recipe, in as many tables as it takes."""
    columns = {name: {key: shown(value) for key, value in _values(recipe).items()} for name, recipe in recipes.items()}
    rows = list(dict.fromkeys(key for values in columns.values() for key in values))
    first, tables, names = max(map(len, rows), default=0), [], list(columns)
    widths = {name: max(map(len, [name, *columns[name].values()])) for name in names}
    while names:
        chosen = [names.pop(0)]
        while names and first + sum(2 + widths[name] for name in [*chosen, names[0]]) <= WIDTH:
            chosen.append(names.pop(0))
        lines = [[" " * first, *(name.ljust(widths[name]) for name in chosen)]]
        lines += [[row.ljust(first), *(columns[n].get(row, "").ljust(widths[n]) for n in chosen)] for row in rows]
        tables.append("\n".join("  ".join(line).rstrip() for line in lines))
    return "\n\n".join(tables)


def described(recipes: Mapping[str, object], default: str) -> str:
    """What --recipes prints."""
    said = f"--recipe NAME takes one of these {len(recipes)}; --recipe auto, the default, is {default} unless data or "
    return textwrap.fill(f"{said}settings of the command say otherwise.", WIDTH) + "\n\n" + recipes_table(recipes)
