"""Where Kaggle mounts what a kernel reads: two layouts, before and after early 2026, resolved by looking.

Knows the standard library only; the root is handed in, so nothing here knows /kaggle.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import PodiumError

# An input lies at most so deep: models/owner/model/framework/variation/version.
MAX_DEPTH, MAX_FOLDERS = 6, 500
TREE_DEPTH, TREE_LINES = 4, 60


def old_mount(mount: str) -> str:
    """Where the input of a new-style mount was found before 2026: `datasets/owner/slug` -> `slug`.

    A model keeps all but its kind and owner: `models/owner/model/framework/variation/version` -> `model/framework/…`.
    """
    kind, *parts = mount.split("/")
    return "/".join(parts[1:]) if kind == "models" else parts[-1]


def model_mount(source: str) -> str:
    """Where a Kaggle Model (`owner/model/framework/variation/version`) is mounted: its framework in small letters."""
    owner, model, framework, *rest = source.split("/")
    return "/".join(["models", owner, model, framework.lower(), *rest])


def find_input(root: Path, mount: str) -> Path:
    """The folder of an input named as the new layout mounts it (`datasets/owner/slug`), wherever it lies below `root`.

    Looks at the new place, at the old one, and then for a folder of the slug's name anywhere, as under the name of
    another owner who copied the kernel. Raises PodiumError with the tree of what is there.
    """
    for candidate in (root / mount, root / old_mount(mount)):
        if candidate.is_dir():
            return candidate
    slug = mount.rsplit("/", 1)[-1]
    if found := next(_folders_named(root, slug), None):
        return found
    raise PodiumError(
        f"{mount}: not attached to this kernel (looked for it and for {old_mount(mount)} below {root}); add it to the "
        f"kernel's sources and push again. There is:\n{draw_tree(root)}"
    )


def has_input(root: Path, mount: str) -> bool:
    """Whether `find_input` would find it; some inputs, as a kernel's own former output, may be missing."""
    try:
        find_input(root, mount)
    except PodiumError:
        return False
    return True


def draw_tree(root: Path) -> str:
    """What lies below a folder, a few levels deep, cut off after a screenful."""
    lines = list(_tree_lines(root, TREE_DEPTH))
    cut = [f"… {len(lines) - TREE_LINES} more"] if len(lines) > TREE_LINES else []
    return "\n".join([f"{root}/", *lines[:TREE_LINES], *cut])


def _folders_named(root: Path, name: str) -> Iterator[Path]:
    """Breadth first, so that the shallowest wins; bounded, for a dataset may hold a million folders."""
    level = [root]
    for _ in range(MAX_DEPTH):
        below = (path for parent in level[:MAX_FOLDERS] if parent.is_dir() for path in sorted(parent.iterdir()))
        level = [path for path in below if path.is_dir()]
        yield from (folder for folder in level if folder.name == name)


def _tree_lines(folder: Path, depth: int, indent: str = "  ") -> Iterator[str]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        yield f"{indent}{path.name}{'/' if path.is_dir() else ''}"
        if path.is_dir() and depth > 1:
            yield from _tree_lines(path, depth - 1, indent + "  ")
