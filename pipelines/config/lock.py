"""The committed hash of every resolved experiment, so that a changed default cannot silently rewrite an old one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.files.atomic import write_json
from pipelines.config.experiment_file import experiment_names
from pipelines.config.load import FoldsOf, competition_folds, load_experiment, resolve_yaml
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class LockChanges:
    """Experiments whose resolved file differs from the committed hash, by address."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    def __str__(self) -> str:
        parts = {"changed": self.changed, "added": self.added, "removed": self.removed}
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names) or "nothing changed"


def changed_experiments(workspace: Workspace, *, folds_of: FoldsOf = competition_folds) -> LockChanges:
    """What resolves otherwise than the lock says; every experiment file is loaded on the way.

    Raises:
        ConfigError: An experiment that does not load, or a lock that is not one.
    """
    return _compare(_read_lock(workspace), _hashes(workspace, folds_of))


def write_lock(workspace: Workspace, *, folds_of: FoldsOf = competition_folds) -> LockChanges:
    """Accept all experiments as they resolve now; returns what that changed."""
    hashes = _hashes(workspace, folds_of)
    path = workspace.resolved_lock
    try:
        changes = _compare(_read_lock(workspace), hashes)
    except ConfigError:
        # a lock with conflict marks in it is mended by writing it anew
        changes = _compare({}, hashes)
    write_json(path, hashes)
    return changes


def _compare(locked: Mapping[str, str], hashes: Mapping[str, str]) -> LockChanges:
    return LockChanges(
        changed=tuple(name for name in hashes if name in locked and locked[name] != hashes[name]),
        added=tuple(name for name in hashes if name not in locked),
        removed=tuple(name for name in locked if name not in hashes),
    )


def _hashes(workspace: Workspace, folds_of: FoldsOf) -> dict[str, str]:
    resolved = {
        name: resolve_yaml(load_experiment(workspace, name, folds_of=folds_of)) for name in experiment_names(workspace)
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in resolved.items()}


def _read_lock(workspace: Workspace) -> dict[str, str]:
    path = workspace.resolved_lock
    if not path.is_file():
        return {}
    try:
        locked = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path.parent.name}/{path.name}: not JSON, {error}; `make lock` writes it anew") from error
    if not isinstance(locked, dict):
        raise ConfigError(f"{path.parent.name}/{path.name}: holds no mapping; `make lock` writes it anew")
    return {str(name): str(digest) for name, digest in locked.items()}
