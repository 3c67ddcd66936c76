"""Runs a notebook's code cells, or a script, in order in one process: what Kaggle's papermill does, without Jupyter.

Started by its path under any Python, so it knows the standard library only: `python cell_runner.py CODE REPORT`.
REPORT receives whether all went well, the peak memory, and the notebook with its cells' outputs filled in.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

Cell = dict[str, Any]


class Tee(io.TextIOBase):
    """Writes to the real stream, and keeps what the current cell wrote as a notebook keeps it."""

    def __init__(self, name: str, stream: TextIO, outputs: list[Cell]) -> None:
        self.name, self.stream, self.outputs = name, stream, outputs

    def write(self, text: str) -> int:
        self.stream.write(text)
        self.stream.flush()
        if self.outputs and self.outputs[-1].get("name") == self.name:
            self.outputs[-1]["text"] += text
        else:
            self.outputs.append({"output_type": "stream", "name": self.name, "text": text})
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook, or a script as a notebook of one cell; lists of source lines are joined."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return {"cells": [{"cell_type": "code", "source": text}]}
    notebook: dict[str, Any] = json.loads(text)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def run_cell(source: str, number: int, namespace: dict[str, Any]) -> None:
    """Execute one cell; the value of a last expression is shown, as in Jupyter."""
    name = f"<cell {number}>"
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if value is not None:
            print(repr(value))


def run(notebook: dict[str, Any]) -> bool:
    """Run all code cells up to the first that fails; returns whether none did."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    real = sys.stdout, sys.stderr
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        outputs: list[Cell] = []
        cell["execution_count"], cell["outputs"] = number, outputs
        sys.stdout, sys.stderr = Tee("stdout", real[0], outputs), Tee("stderr", real[1], outputs)
        try:
            run_cell(cell["source"], number, namespace)
        except BaseException as error:  # SystemExit ends a notebook's run too
            traceback.print_exc()
            kind = type(error).__name__
            outputs.append({"output_type": "error", "ename": kind, "evalue": str(error), "traceback": []})
            return False
        finally:
            sys.stdout, sys.stderr = real
    return True


def peak_bytes() -> int:
    """The most memory this process held, by the system's account; 0 where it keeps none."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return 0
    return next((int(words[1]) * 1024 for words in lines if words[:1] == ["VmHWM:"]), 0)


def list_origins() -> list[str]:
    """The files that the project's packages were imported from."""
    modules = [sys.modules.get(name) for name in ("components", "pipelines")]
    return sorted(str(module.__file__) for module in modules if module is not None)


def main(code: str, report: str) -> int:
    """Run CODE and write REPORT; the exit code says whether all cells ran."""
    notebook = read_notebook(Path(code))
    ok = run(notebook)
    facts = {"ok": ok, "peak_bytes": peak_bytes(), "origins": list_origins(), "notebook": notebook}
    Path(report).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
