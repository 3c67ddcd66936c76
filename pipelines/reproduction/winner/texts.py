"""The documents of a winner's package, from the record of a submission. What only the authors know is asked for."""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path

from pipelines.runs.record import Machine
from pipelines.screen import format_bytes
from pipelines.submissions.ledger_entry import LedgerEntry

ASK = "> *To be written by the authors:*"


def render_readme(record: LedgerEntry, title: str) -> str:
    """README.md: what Kaggle asks for first."""
    machine, versions = record.machine or Machine(), record.versions
    gpus = ", ".join(machine.gpus) or "none"
    scores = "\n".join(f"| {name} | {value} |" for name, value in _scores(record).items())
    changes = ", with uncommitted changes" if record.diff else ""
    return f"""# {title}: submission {record.ref}

Everything here was written by `podium winner-package` from the record of that submission, `record.json`. The source in
`source/` is commit {record.commit}{changes}; `model/{record.run}/` holds the trained model. The submitted file
has the sha256 {record.submission_sha256}.

| score | |
|---|---|
{scores}

## Hardware

| | |
|---|---|
| processor | {machine.processor}, {machine.cores} cores, {machine.torch_threads} threads used |
| memory | {format_bytes(machine.memory_bytes) if machine.memory_bytes else "not recorded"} |
| GPUs | {gpus} |
| system | {machine.system} |

## Software

Python {versions.get("python")} and the libraries of `requirements.txt`, in the versions of the submission:

```
python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
```

## Making the submission again

```
python prepare_data.py    # checks the competition's files in RAW_DATA_DIR, copies them to CLEAN_DATA_DIR
python predict.py         # predicts with the submitted model; says whether the bytes are those of the submitted file
```

## Training again

```
python train.py           # as the run was trained: podium {_command(record)}
python predict.py RUN     # with the run that it names at its end
```

Equal bits can be expected only on the same kind of processor with the same number of threads and the same library
versions. The seed is {record.seed}. Folders are set in `SETTINGS.json`; nothing else has to be edited.
"""


def render_entry_points(record: LedgerEntry) -> str:
    """entry_points.md: each command with what it reads and writes."""
    return f"""# Entry points

| command | reads | writes |
|---|---|---|
| `python prepare_data.py` | RAW_DATA_DIR: {_files(record)} | CLEAN_DATA_DIR |
| `python train.py` | CLEAN_DATA_DIR, `source/experiments` | MODEL_DIR/`<new run>` |
| `python predict.py [RUN]` | CLEAN_DATA_DIR, MODEL_DIR/`{record.run}` | SUBMISSION_DIR/`submission.csv` |

The folders are those of `SETTINGS.json`; a relative one lies in this package.
"""


def render_summary(record: LedgerEntry, title: str, configuration: str) -> str:
    """MODEL_SUMMARY.md: Kaggle's questions, answered as far as the record can."""
    machine = record.machine or Machine()
    gpus = ", ".join(machine.gpus) or "no GPU"
    scores = ", ".join(f"{name} {value}" for name, value in _scores(record).items())
    return f"""# Model summary

| | |
|---|---|
| competition | {title} (`{record.competition}`) |
| submission | {record.ref}, {record.time} |
| scores | {scores} |

## A1. Background of the authors
{ASK} names, places, experience, time spent.

## A2. Summary
One experiment, `{record.experiment}`; {len(record.weights)} files of weights.
{ASK} the approach in a few sentences, and what mattered most.

## A3. Features
{ASK} what the model reads, what was tried and left out. External data and published weights stand in the
configuration below.

## A4. Training
The whole configuration of the run, defaults included:

```yaml
{configuration.strip()}
```

## A5. Interesting findings
{ASK} what set this solution apart.

## A6. A simpler model
{ASK} what a smaller subset would score.

## A7. Execution time
{machine.processor}, {gpus}.
{_duration(record)}

## A8. References
{ASK} papers, posts and code that this stands on.
"""


def render_requirements(source: Path, record: LedgerEntry) -> str:
    """requirements.txt: what the source asks for, as it was installed, else in the versions it was tested with."""
    settings = configparser.ConfigParser()
    settings.read(source / "setup.cfg", encoding="utf-8")
    names = _names(settings.get("options", "install_requires", fallback=""))
    if record.host == "local":
        names += _names(settings.get("options.extras_require", "examples", fallback=""))
    if "numba" in record.versions:
        names.append("numba")
    tested = _pinned(source / "constraints.txt")
    recorded = {name.lower(): version for name, version in record.versions.items()}
    lines = []
    for name in dict.fromkeys(names):
        version = recorded.get(name.lower()) or tested.get(name.lower())
        lines.append(f"{name}=={version}" if version else name)
    return f"# Python {record.versions.get('python')}\n" + "".join(f"{line}\n" for line in lines)


def render_structure(root: Path) -> str:
    """directory_structure.txt: folders, and files with their sizes; the source's files are left to its folders."""
    lines = []
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if place.parts[0] == "source" and path.is_file():
            continue
        lines.append(f"{place.as_posix()}/" if path.is_dir() else f"{place.as_posix()}  {path.stat().st_size:,} bytes")
    return "".join(f"{line}\n" for line in lines)


def _scores(record: LedgerEntry) -> Mapping[str, object]:
    cv = {name: value for name, value in record.cv.items() if name.startswith("cv/")}
    public = {f"public {name}": score for name, score in record.public.items()}
    return cv | public | {f"private {name}": score for name, score in record.private.items()}


def _files(record: LedgerEntry) -> str:
    return ", ".join(f"`{name}`" for name in record.data_sha256)


def _command(record: LedgerEntry) -> str:
    words = list(record.command) or ["train"]
    return " ".join(words[words.index("train") :] if "train" in words else words)


def _duration(record: LedgerEntry) -> str:
    seconds = record.wall_seconds
    return f"Training took {seconds / 3600:.2f} h." if seconds else f"{ASK} how long training and prediction take."


def _names(requirements: str) -> list[str]:
    lines = (line.strip() for line in requirements.splitlines())
    return [re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0] for line in lines if line and not line.startswith("#")]


def _pinned(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): version.strip() for name, version in pairs}
