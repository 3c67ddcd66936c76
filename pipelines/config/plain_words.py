"""What YAML 1.1 makes of plain words and numbers behind a writer's back, kept as the text that was written.

PyYAML and OmegaConf follow YAML 1.1, in which 010 is 8, 1:30 is 90, 1_000 is 1000 and no, yes, on and off are truth
values. Kept as text, such a value is good where text belongs. Where a number or a truth value belongs it is refused,
and the refusal spells it without a doubt.
"""

import re

import yaml

_SURPRISE = re.compile(
    "|".join(
        (
            r"[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF",
            r"[-+]?0[0-9_]+",  # to the base of 8
            r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?",  # to the base of 60
            r"[-+]?\.?[0-9][\w.]*_[\w.+-]*",
        )
    )
)


def keep_as_written(text: str) -> str:
    """The YAML text with its surprising plain scalars in quotes; lines and columns before them stay.

    Raises:
        yaml.YAMLError: For what cannot be YAML.
    """
    parts, end = [], 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain and _SURPRISE.fullmatch(token.value):
            start = token.start_mark.index
            parts += [text[end:start], f"'{token.value}'"]
            end = start + len(token.value)
    return "".join((*parts, text[end:]))


def plain_spelling(text: str, kind: type) -> str | None:
    """How a number or a truth value that `keep_as_written` kept as text is written without a doubt; None for others."""
    if kind not in (bool, int, float) or not _SURPRISE.fullmatch(text):
        return None
    if kind is bool:
        spelling = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower())
        return spelling and f"written {spelling}"
    try:
        return f"written {kind(text.replace('_', ''))!r}"
    except ValueError:
        return "in decimal digits alone"
