"""Which values a field takes: stricter than YAML and OmegaConf, which would turn true into 1 and 1.5 into '1.5'."""

import types
import typing
from dataclasses import fields

from pipelines.config.checks import shown
from pipelines.config.plain_words import plain_spelling

Scalar = str | int | float | bool | None

NEEDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def field_types(section: type) -> dict[str, object]:
    """Field -> annotation, in the order of the class."""
    hints = typing.get_type_hints(section)
    return {known.name: hints[known.name] for known in fields(section)}


def unpack(annotation: object) -> tuple[type, bool]:
    """The annotation's type without None, and whether None was in it."""
    if not isinstance(annotation, types.UnionType):
        assert isinstance(annotation, type)
        return annotation, False
    kinds = [kind for kind in annotation.__args__ if kind is not types.NoneType]
    assert len(kinds) == 1, f"{annotation}: a field has one type, or one type and None"
    return kinds[0], True


def checked_value(value: object, annotation: object) -> Scalar:
    """The value as the field's type.

    Raises:
        ValueError: Of another type; the message names the value and the cure, and not the key.
    """
    kind, is_optional = unpack(annotation)
    if value is None and is_optional:
        return None
    if kind is str and isinstance(value, bool):
        # As in mixed_precision: false
        return "yes" if value else "no"
    if kind is str and isinstance(value, str | int):
        return str(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool) and type(value) is kind:
        return typing.cast(Scalar, value)
    wanted = NEEDS[kind] + (" or null" if is_optional else "")
    raise ValueError(f"{shown(value)} is {_kind_of(value)}; needs {wanted}{_cure(value, kind, is_optional)}")


def _kind_of(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a mapping"
    kinds = {bool: "true or false", int: "a whole number", float: "a fraction", str: "text", bytes: "binary"}
    return kinds.get(type(value), f"of the kind {type(value).__name__}")


def _cure(value: object, kind: type, is_optional: bool) -> str:
    if is_optional and value in ("None", "none", "NULL"):
        return ", written null"
    if isinstance(value, float) and value.is_integer():
        return f", {int(value)}"
    if isinstance(value, str) and (spelling := plain_spelling(value, kind)):
        return f", {spelling}"
    return ""
