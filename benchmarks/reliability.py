"""Nothing that podium makes is lost or silently changed by kills, damages, races, full disks or an absent server.

    python benchmarks/reliability.py                                       # this checkout, every part; an hour
    python benchmarks/reliability.py --checkout ../podium-before           # another one, through the same matrix
    python benchmarks/reliability.py --only kills,disks --seed 3
    python benchmarks/reliability.py --cases "kill submit" --jobs 2        # those whose name the expression finds
    python benchmarks/reliability.py --table benchmarks/results/reliability-*.json

Everything goes through the command line, forked from a warm process of the checkout that is tried, so that one matrix
serves any of its versions. A case says nothing unless it is wrong; then the words after WRONG are what `--cases` finds
again, with the same seed. What is run later is merged into the file of results, row by row. Exit code 1 where any is
wrong.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults import damages, disks, kills, races, server
from faults.cases import Bench, Case, Row, run_cases

RESULTS = Path(__file__).with_name("results")
PARTS: Mapping[str, Callable[[], Iterator[Case]]] = {
    "kills": kills.cases,
    "damages": damages.cases,
    "races": races.cases,
    "disks": disks.cases,
    "server": server.cases,
}


def read_commit(checkout: Path) -> str:
    """The last commit that changed what is tried, with a plus sign where files differ from it."""
    git, source = ["git", "-C", str(checkout)], ["components", "pipelines", "experiments", "kernels"]
    log, status = (
        subprocess.run([*git, *words, "--", *source], capture_output=True, text=True, check=True).stdout.strip()
        for words in (["log", "-1", "--format=%H"], ["status", "--short"])
    )
    return log + ("+" if status else "")


def describe(row: Row) -> dict[str, Any]:
    return {
        "part": row.part,
        "what": row.row,
        "trials": row.trials,
        "right": row.right,
        "kinds": dict(sorted(row.kinds.items())),
        "exceptions": row.exceptions,
    }


def merge(path: Path, commit: str, part: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Put rows of a part into the file of results, in place of those of the same name."""
    content: dict[str, Any] = {"commit": commit, "machine": "", "parts": {}, "rows": []}
    if path.is_file():
        former = json.loads(path.read_text())
        content = former if former["commit"] == commit else content
    content["machine"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
    content["parts"][str(part["part"])] = dict(part)
    tried = {(row.part, row.row) for row in rows}
    kept = [row for row in content["rows"] if (row["part"], row["what"]) not in tried]
    order = {name: number for number, name in enumerate(PARTS)}
    content["rows"] = sorted([*kept, *map(describe, rows)], key=lambda row: order[row["part"]])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def table(paths: Sequence[Path]) -> str:
    """The rows of results as a table in Markdown, one pair of columns for each file."""
    results = [json.loads(path.read_text()) for path in paths]
    names = dict.fromkeys((row["part"], row["what"]) for result in results for row in result["rows"])
    head = [
        "what",
        *(f"{word} {result['commit'][:7]}" for result in results for word in ("right of trials,", "wrong,")),
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for key in names:
        cells = [f"{key[0]}: {key[1]}"]
        for result in results:
            row = next((row for row in result["rows"] if (row["part"], row["what"]) == key), None)
            cells += [f"{row['right']}/{row['trials']}", _wrong(row)] if row else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _wrong(row: Mapping[str, Any]) -> str:
    kinds: dict[str, int] = {}
    for exception in row["exceptions"]:
        kind = exception["said"].partition(":")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--python", type=Path, help="its interpreter; default: the one in its .venv")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--cases", default="", help="one case by its name, or a regular expression that finds several")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: results/reliability-COMMIT.json; none with --cases")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    parser.add_argument("--table", type=Path, nargs="+", metavar="JSON", help="only print the table of these results")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    chosen = {
        part: [case for case in PARTS[part]() if case.name == arguments.cases or re.search(arguments.cases, case.name)]
        for part in arguments.only.split(",")
    }
    if arguments.list:
        print("\n".join(case.name for cases in chosen.values() for case in cases))
        return
    sys.exit(try_all(arguments, chosen))


def try_all(arguments: argparse.Namespace, chosen: Mapping[str, Sequence[Case]]) -> int:
    """Run the parts one after the other, keep what came out, print the table; 1 where anything was wrong."""
    checkout = arguments.checkout.resolve()
    commit = read_commit(checkout)
    out = arguments.out or (None if arguments.cases else RESULTS / f"reliability-{commit[:7]}.json")
    bench = Bench(checkout, arguments.python or checkout / ".venv" / "bin" / "python", arguments.seed)
    all_rows: list[Row] = []
    try:
        for part, cases in chosen.items():
            rows, seconds = run_cases(bench, cases, arguments.jobs, lambda text: print(text, flush=True))
            all_rows += rows
            facts = {"part": part, "command": " ".join(["python", *sys.argv]), "seed": arguments.seed}
            facts |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds)}
            if out and cases:
                merge(out, commit, facts, rows)
    finally:
        bench.close()
    print(f"{time.strftime('%H:%M:%S')} {commit}")
    for row in all_rows:
        print(f"{row.part:8} {row.row:45} {row.right:4}/{row.trials:<4} {dict(sorted(row.kinds.items()))}")
    return int(any(row.exceptions for row in all_rows))


if __name__ == "__main__":
    main()
