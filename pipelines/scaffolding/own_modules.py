"""Which competitions' files are podium's own: `podium new` leaves them alone."""

import ast
from pathlib import Path


def is_own_module(path: Path) -> bool:
    """Whether a file of the catalogue is anything but a Kaggle competition's, which `podium new` could have written.

    The file is parsed and not run. One that is no Python any more was a user's.
    """
    if not path.exists():
        return False
    try:
        lines = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return False
    values = [line.value for line in lines if isinstance(line, ast.Assign | ast.AnnAssign) and _is_competition(line)]
    calls = [value for value in values if isinstance(value, ast.Call)]
    return not values or any(word.arg == "prepare" for call in calls for word in call.keywords)


def _is_competition(line: ast.Assign | ast.AnnAssign) -> bool:
    targets = line.targets if isinstance(line, ast.Assign) else [line.target]
    return any(isinstance(target, ast.Name) and target.id == "COMPETITION" for target in targets)
