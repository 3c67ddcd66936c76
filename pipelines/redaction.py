"""Secrets in texts that leave this machine or are kept for good: what they look like, and how they are taken out.

Two ways to know one: by its value, where the environment or a credential file of this machine holds it, and by its
shape, for those of other machines. A shape can be wrong; what is lost by that is a word in a record, never a training.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REMOVED = "[secret removed]"
MIN_LENGTH = 8  # shorter values are words of every text
# What stands between two lines: breaks, real or spelled, and what a patch, a quotation or an indentation adds.
_LINE_BREAK = r"""(?:[\s"',+-]|\\+[rn])+?"""
_WORD_OF_A_SECRET = re.compile(rf"(?=.*[0-9])(?=.*[A-Za-z])\S{{{MIN_LENGTH},}}")
_SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
_SECRET_FILES = (".kaggle/access_token", ".kaggle/access_token.txt", ".cache/huggingface/token")
_SECRET_JSON = (".kaggle/kaggle.json", ".kaggle/credentials.json", ".config/kaggle/kaggle.json")
# Where a pattern has a group, the group is the secret and the rest stays readable.
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "a Kaggle token": re.compile(r"\bKGAT_[0-9A-Za-z]{16,}"),
    "a Kaggle key": re.compile(
        r"""(?:"key"\s*:\s*"|KAGGLE_KEY["']?\s*\]?\s*[=:,]\s*["']?)([0-9a-f]{32})(?![0-9a-f])"""
    ),
    "a Hugging Face token": re.compile(r"\bhf_[0-9A-Za-z]{24,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{36,})"),
    "a GitLab token": re.compile(r"\bglpat-[0-9A-Za-z_-]{20,}"),
    "an sk- key": re.compile(r"\bsk-[0-9A-Za-z_-]{20,}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}"),
    "a Slack token": re.compile(r"\bxox[abeprs]-[0-9A-Za-z-]{10,}"),
    "a JSON web token": re.compile(r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    "a password in an address": re.compile(r"://[^/@:\s\"']+:([^/@\s\"']{3,})@"),
    "a literal that is called a secret": re.compile(
        r"""(?i)(?:api_?key|token|secret|password|passwd)["']?\s*\]?\s*[:=]\s*["']"""
        r"""((?=[^"'\s]*[0-9])(?=[^"'\s]*[A-Za-z])[^"'\s/.$]{16,})["']"""
    ),
}


@dataclass(frozen=True)
class Secret:
    """A stretch of a text that must not leave: where it is, and in words what it looks like; never the secret."""

    start: int
    end: int
    line: int
    kind: str


def known_secrets(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Secret values of this machine, each with the place that holds it: variables by their names, credential files."""
    environment = os.environ if environment is None else environment
    values = {value: f"the value of {name}" for name, value in environment.items() if _SECRET_NAME.search(name)}
    home = Path(environment.get("HOME") or Path.home())
    folder = environment.get("KAGGLE_CONFIG_DIR")
    candidates = [home / name for name in (*_SECRET_FILES, *_SECRET_JSON)]
    candidates += [Path(folder, Path(name).name) for name in (*_SECRET_FILES, *_SECRET_JSON)] if folder else []
    # A variable may name the file that holds the token.
    candidates += [Path(value) for value in values if "\n" not in value and len(value) < 4096]
    for path in candidates:
        values |= dict.fromkeys(_values_in(path), f"what {path} holds")
    return {value: place for value, place in values.items() if len(value) >= MIN_LENGTH and not _is_path(value)}


def find_secrets(text: str, known: Mapping[str, str] | None = None) -> list[Secret]:
    """All secrets of a text in their order, none inside another. `known` defaults to this machine's."""
    found = sorted(_all_secrets(text, known_secrets() if known is None else known), key=lambda s: (s.start, -s.end))
    apart: list[Secret] = []
    for secret in found:
        if not apart or secret.start >= apart[-1].end:
            apart.append(secret)
    return apart


def without_secrets(text: str, known: Mapping[str, str] | None = None) -> str:
    """The text with every secret replaced; its lines stay as many, so that a patch remains one."""
    pieces, position = [], 0
    for secret in find_secrets(text, known):
        pieces += [text[position : secret.start], _blacked_out(text[secret.start : secret.end])]
        position = secret.end
    return "".join([*pieces, text[position:]])


def cleaned(value: Any, known: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON is what it is
    """A value made of lists, mappings and words, with every word `without_secrets`."""
    known = known_secrets() if known is None else known
    if isinstance(value, str):
        return without_secrets(value, known)
    if isinstance(value, Mapping):
        return {cleaned(name, known): cleaned(inner, known) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner, known) for inner in value]
    return value


def _all_secrets(text: str, known: Mapping[str, str]) -> Iterator[Secret]:
    for value, place in known.items():
        for form in _forms(value):
            for match in re.finditer(form, text):
                yield _at(text, match.start(), match.end(), place)
    for kind, pattern in _SHAPES.items():
        for match in pattern.finditer(text):
            group = 1 if pattern.groups else 0
            if REMOVED not in match.group(group):
                yield _at(text, match.start(group), match.end(group), kind)


def _forms(value: str) -> Iterator[str]:
    """Patterns of a value: of several lines as they stand in a text, a patch or a quoted word, and of each alone.

    In a patch a sign stands before every line, and two lines need not be neighbours. A line alone is looked for where
    it cannot be a word of other texts.
    """
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if len("".join(lines)) < MIN_LENGTH:
        yield re.escape(value)
        return
    yield _LINE_BREAK.join(map(re.escape, lines))
    if len(lines) > 1:
        yield from (re.escape(line) for line in lines if _WORD_OF_A_SECRET.fullmatch(line))


def _at(text: str, start: int, end: int, kind: str) -> Secret:
    return Secret(start, end, text.count("\n", 0, start) + 1, kind)


def _blacked_out(secret: str) -> str:
    others = secret.split("\n")[1:]
    # Of a key's further lines a patch needs the sign at their beginning, or the blank of a line that stays.
    return "\n".join([REMOVED, *(line[: line[:1] in "+- "] + REMOVED for line in others)])


def _values_in(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return []
    if path.suffix != ".json":
        return [text.strip()] if "\n" not in text.strip() else []
    try:
        content = json.loads(text)
    except ValueError:
        return []
    pairs = content.items() if isinstance(content, dict) else ()
    return [value for name, value in pairs if isinstance(value, str) and _SECRET_NAME.search(name)]


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", "./")) and Path(value).expanduser().exists()
