"""Reading experiment files and overrides: text in, plain nested values out, or one line that says where it is wrong."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from components.nearest import did_you_mean
from pipelines.config.plain_words import keep_as_written
from pipelines.config.schema import Values
from pipelines.errors import ConfigError, PodiumError
from pipelines.names import run_name
from pipelines.workspace import Workspace

TOO_DEEP = "is nested too deep to be read; needs keys such as model: and values in them"


# What YAML's reader raises for a value that its tag does not fit, such as !!bool abc.
_MISFITS = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


def experiment_names(workspace: Workspace) -> list[str]:
    """All experiments as a user addresses them: `mt5_adafactor`, and `smoke/mt5_adafactor` for one in a folder."""
    files = workspace.experiments.rglob("*.yaml")
    addresses = sorted(file.relative_to(workspace.experiments).with_suffix("").as_posix() for file in files)
    return sorted(addresses, key=lambda address: address.count("/"))


def ask_which(workspace: Workspace) -> NoReturn:
    """Raise the PodiumError of a command that was given no experiment, with all there are."""
    names = "\n".join(f"  {name}" for name in experiment_names(workspace))
    raise PodiumError(f"which experiment? EXP=… is one of\n{names}")


def find_experiment(workspace: Workspace, name: str) -> str:
    """The address of an experiment by its address or its one-word name.

    Raises:
        ConfigError: With the list of what exists.
    """
    known = experiment_names(workspace)
    found = [address for address in known if name in (address, run_name(address))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name} names two experiments, {' and '.join(found)}; rename one of them")
    stem = Path(name).stem
    nearest = stem if stem in known else name
    listing = f"there are: {', '.join(known)}" if known else f"{workspace.experiments} holds no .yaml file"
    raise ConfigError(f"{name}: no such experiment{did_you_mean(nearest, known) or ';'} {listing}")


def file_label(workspace: Workspace, address: str) -> str:
    """The file as messages name it, from the checkout's root."""
    return f"{workspace.experiments.name}/{address}.yaml"


def read_experiment(workspace: Workspace, address: str) -> Values:
    """One file's own values, its name held against its stem; neither parent nor defaults are looked at."""
    label = file_label(workspace, address)
    values = read_values(workspace.experiments / f"{address}.yaml", label)
    stem = address.rsplit("/", 1)[-1]
    if "name" not in values:
        raise ConfigError(f"{label}: name: missing; needs the file's stem, name: {stem}")
    if values["name"] != stem:
        raise ConfigError(f"{label}: name: {values['name']!r} is not the file's stem; needs {stem}")
    return values


def read_values(path: Path, label: str) -> Values:
    """A YAML file as nested plain values.

    Raises:
        ConfigError: Unreadable, no mapping, a key twice, a tab, an interpolation: with the line where there is one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{label}: {error.strerror or error}") from error
    try:
        parsed = OmegaConf.load(io.StringIO(keep_as_written(text)))
        if not isinstance(parsed, DictConfig):
            raise ConfigError(f"{label}: holds a list; needs keys such as name: and model:")
        values = _plain(parsed, label)
    except RecursionError:
        raise ConfigError(f"{label}: {TOO_DEEP}") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError, *_MISFITS) as error:
        raise ConfigError(f"{label}: {_syntax_problem(error)}") from error
    if not values:
        raise ConfigError(f"{label}: empty; needs at least name: and competition:, or parent:")
    return values


def parse_overrides(overrides: Sequence[str], label: str) -> Values:
    """`optimizer.lr=5e-4` and the like as nested values; a later one wins.

    Raises:
        ConfigError: Without `=`, without a key or a value, or with a value that is not YAML.
    """
    written = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{label} {override}: no value; write {override}=VALUE")
        if not value.strip():
            raise ConfigError(f"{label} {override}: no value; write {key}=null for none")
        if not all(part.isidentifier() for part in key.split(".")) or key.count(".") > 1:
            raise ConfigError(f"{label} {override}: {key!r} is not a key; write section.field=value or seed=1")
        try:
            written.append(f"{key}={keep_as_written(value)}")
            OmegaConf.from_dotlist(written[-1:])
        except RecursionError:
            raise ConfigError(f"{label} {override[:60]}…: {TOO_DEEP}") from None
        except (yaml.YAMLError, OmegaConfBaseException, *_MISFITS) as error:
            raise ConfigError(f"{label} {override}: {_syntax_problem(error)}") from error
    _refuse_whole_sections(overrides, label)
    return _plain(OmegaConf.from_dotlist(written), label)


def _refuse_whole_sections(overrides: Sequence[str], label: str) -> None:
    keys = [override.partition("=")[0] for override in overrides]
    for key in keys:
        if any(other.startswith(f"{key}.") for other in keys):
            raise ConfigError(f"{label} {key}: is a section and has no value of its own; write {key}.name=...")


def _plain(parsed: DictConfig, label: str) -> Values:
    values: Any = OmegaConf.to_container(parsed, resolve=False)
    for key, value in _leaves(values):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{label}: {key}: {value!r} is an interpolation; write the value itself")
        if value == "???":
            raise ConfigError(f"{label}: {key}: '???' stands for a missing value; write the value itself")
    return dict(values)


def _leaves(values: Values, prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in values.items():
        inner = _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
        leaves.extend(inner)
    return leaves


def _syntax_problem(error: Exception) -> str:
    """The parser's complaint on one line, counted from line 1."""
    if isinstance(error, _MISFITS) and not isinstance(error, OmegaConfBaseException):
        return f"a value does not fit its tag ({next(iter(str(error).splitlines()), type(error).__name__)})"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"cannot be read: {next(iter(str(error).splitlines()), type(error).__name__)}"
    problem = error.problem or "not YAML"
    if "cannot start any token" in problem:
        problem += " (indent with spaces, not tabs; quote a value that starts with @, ` or %)"
    line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    return f"{line}{problem}"
