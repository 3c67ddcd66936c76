"""Wheels that Kaggle's image lacks: resolved once for its Python and libraries, locked by digest, fetched again by it.

`kernels/<slug>/wheels.lock` names them and is meant to be committed, so that a kernel is the same whenever it is built.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.files.atomic import atomic_file
from components.files.digests import file_digest
from pipelines import names
from pipelines.errors import PodiumError

PYTHON_VERSION = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# Name and version, perhaps a build number, and three tags.
_WHEEL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._]*-[A-Za-z0-9][A-Za-z0-9.!+_]*(-[0-9][A-Za-z0-9_.]*)?(-[A-Za-z0-9_.]+){3}\.whl"
)
_HEADER = "# wheels for Kaggle's image: "


def obtain_wheels(requirements: Sequence[str], *, lock: Path, cache: Path, image: Path) -> list[Path]:
    """The wheels, in the order of their names, from `cache` or the package index.

    What `image` (a constraints file) lists is there already and not fetched. Without a `lock` for these requirements
    they are resolved and it is written. Raises PodiumError for a requirement that is none, where pip cannot resolve
    them, or finds other bytes than the lock says.
    """
    try:
        for requirement in requirements:
            names.requirement(requirement)
    except ValueError as error:
        raise PodiumError(f"wheels: {error}") from None
    locked = _read_lock(lock, requirements)
    if locked is None:
        chosen = _resolve(requirements, image)
        wheels = [_fetch(name, version, cache) for name, version in chosen]
        lines = "".join(f"{file_digest(path)}  {path.name}\n" for path in sorted(wheels))
        with atomic_file(lock) as partial:
            partial.write_text(_HEADER + ", ".join(requirements) + "\n" + lines, encoding="utf-8")
        return sorted(wheels)
    wheels = [cache / name for name in locked]
    for path in wheels:
        if not path.is_file():
            name, version = path.name.split("-")[:2]
            _fetch(name, version, cache)
        if not path.is_file() or file_digest(path) != locked[path.name]:
            raise PodiumError(f"{path}: is not the wheel of {lock}; delete it, or the lock to resolve anew")
    return wheels


def _read_lock(lock: Path, requirements: Sequence[str]) -> dict[str, str] | None:
    """Wheel -> sha256; None where there is no lock for these requirements. PodiumError for a line that is none."""
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    if not lines or lines[0] != _HEADER + ", ".join(requirements):
        return None
    locked = {}
    for number, line in enumerate(lines[1:], start=2):
        digest, _, name = line.partition("  ")
        try:
            names.digest(digest)
            if not _WHEEL.fullmatch(names.name(name)):
                raise ValueError(f"{name!r} is no wheel; needs name-version-python-abi-platform.whl")
        except ValueError as error:
            raise PodiumError(f"{lock}, line {number}: {error}; delete the lock to resolve anew") from None
        locked[name] = digest
    return locked


def _resolve(requirements: Sequence[str], image: Path) -> list[tuple[str, str]]:
    """Name and version of all that must be added to the image."""
    present = _read_pins(image)
    # What is asked for by name may differ from the image's; everything it needs must do with what is there.
    asked = {_normal(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in requirements}
    kept = [f"{name}=={version}" for name, version in present.items() if name not in asked]
    with tempfile.TemporaryDirectory(prefix="podium-wheels-") as name:
        constraints, report = Path(name) / "constraints.txt", Path(name) / "report.json"
        constraints.write_text("\n".join(kept) + "\n", encoding="utf-8")
        options = ["--dry-run", "--ignore-installed", "--report", str(report), "--target", name]
        options += ["--constraint", str(constraints)]
        _pip(["install", *options, "--", *requirements], what=", ".join(requirements))
        installs: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    chosen = {_normal(entry["metadata"]["name"]): str(entry["metadata"]["version"]) for entry in installs}
    return sorted((name, version) for name, version in chosen.items() if present.get(name) != version)


def _fetch(name: str, version: str, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    prefix = f"{_normal(name)}-{version}-"
    found = [path for path in cache.glob("*.whl") if _normal(path.name).startswith(_normal(prefix))]
    if not found:
        _pip(["download", "--no-deps", "--dest", str(cache), "--", f"{name}=={version}"], what=f"{name} {version}")
        found = [path for path in cache.glob("*.whl") if _normal(path.name).startswith(_normal(prefix))]
    return found[0]


def _pip(arguments: Sequence[str], *, what: str) -> None:
    target = ["--python-version", PYTHON_VERSION, "--implementation", "cp", "--only-binary", ":all:"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command, *rest = arguments
    call = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *target, *rest]
    result = subprocess.run(call, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip says no more"]
        raise PodiumError(f"wheels: {what}: {errors[-1]} (for Python {PYTHON_VERSION} beside Kaggle's libraries)")


def _read_pins(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_normal(name): version for name, version in pins}


def _normal(name: str) -> str:
    """Names as package indices compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()
