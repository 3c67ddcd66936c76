"""The experiment file explained: every field of every choice, and where each value of one experiment comes from.

The sentence of a field is the string literal under it in the source, so it is written once.
"""

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, fields
from typing import Any

from omegaconf import OmegaConf

from pipelines.config.checks import shown
from pipelines.config.schema import DEFAULT_CHOICES, SECTIONS, Experiment, Values
from pipelines.config.sections.section import Section
from pipelines.config.values import field_types, unpack

WIDTH = 118
WORDS = ("name", "parent", "competition", "seed", "fold")


def field_sentences(section: type) -> dict[str, str]:
    """Field -> its sentence, the inherited ones included."""
    sentences: dict[str, str] = {}
    for base in reversed(section.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                assert isinstance(statement.target, ast.Name)
                sentences[statement.target.id] = str(ast.literal_eval(following.value))
    return sentences


def describe_schema() -> str:
    """Every key of an experiment file: type, default and sentence, by section and choice."""
    types, sentences = field_types(Experiment), field_sentences(Experiment)
    words = [known for known in fields(Experiment) if known.name in WORDS]
    blocks = [_table([_row(word, types[word.name], sentences[word.name]) for word in words], "")]
    for kind, choices in SECTIONS.items():
        blocks.append(f"{kind}:  # {sentences[kind]}")
        blocks.extend(_describe_choice(kind, name, choice) for name, choice in choices.items())
    return "\n\n".join(blocks)


def annotate(experiment: Experiment) -> str:
    """The resolved file, still YAML, with the origin of each value that is not the schema's default beside it."""
    rows: list[tuple[str, str]] = []
    for key, value in experiment.raw.items():
        if isinstance(value, dict):
            rows.append((f"{key}:", ""))
            rows.extend(_value_rows({inner: scalar}, "  ", f"{key}.", experiment) for inner, scalar in value.items())
        else:
            rows.append(_value_rows({key: value}, "", "", experiment))
    width = max(len(text) for text, origin in rows if origin) + 2
    return "\n".join(f"{text:<{width}}# {origin}" if origin else text for text, origin in rows)


def _value_rows(pair: Values, indent: str, prefix: str, experiment: Experiment) -> tuple[str, str]:
    (key,) = pair
    text = textwrap.indent(OmegaConf.to_yaml(OmegaConf.create(pair)).rstrip("\n"), indent)
    # a comment would end a value that YAML folds over several lines
    return text, "" if "\n" in text else experiment.origins.get(f"{prefix}{key}", "")


def _describe_choice(kind: str, name: str, choice: type[Section]) -> str:
    note = "  # the default" if DEFAULT_CHOICES.get(kind) == name else ""
    head = f"  name: {name}{note}\n" + textwrap.fill(inspect.getdoc(choice) or "", WIDTH - 2, initial_indent="  ")
    types, sentences = field_types(choice), field_sentences(choice)
    rows = [_row(known, types[known.name], sentences[known.name]) for known in fields(choice)]
    return f"{head}\n{_table(rows, '    ')}" if rows else head


def _row(known: "Field[Any]", annotation: object, sentence: str) -> tuple[str, str, str, str]:
    default = "required" if known.default is MISSING else shown(known.default).strip("'")
    kind, is_optional = unpack(annotation)
    return known.name, f"{kind.__name__} | null" if is_optional else kind.__name__, default, sentence


def _table(rows: list[tuple[str, str, str, str]], indent: str) -> str:
    """Columns as wide as their widest cell; the sentence wraps in its own."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row in rows:
        head = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        lines.append(
            textwrap.fill(row[3], WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
        )
    return "\n".join(lines)
