"""`podium new`: a competition file inferred from Kaggle's CSV files, and an experiment that starts from another one."""

import keyword
import re
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pandas import DataFrame
from rich.console import Console

from components.files.atomic import atomic_file, write_text
from pipelines.competitions.competition import Competition, FoldDefaults
from pipelines.competitions.grades import find_grades, with_grades
from pipelines.competitions.kaggle_files import KaggleFiles
from pipelines.competitions.loading import competition_file
from pipelines.competitions.tables import check_labels
from pipelines.config.experiment_file import experiment_names, find_experiment, read_experiment
from pipelines.errors import PodiumError
from pipelines.names import run_name
from pipelines.scaffolding.own_modules import is_own_module
from pipelines.scaffolding.sniffing import NUM_FOLDS, CompetitionDraft, sniff_competition
from pipelines.screen import say
from pipelines.training.answer_check import check_labels_can_be_scored, check_sample
from pipelines.workspace import Workspace

LINE_LENGTH = 120

COMPETITION_FILE = '''\
"""{title}: {task}, from {inputs}.

https://www.kaggle.com/competitions/{slug}
`podium new competition` read this off the CSV files; correct it where the competition's pages know better.
"""

from pipelines.competitions.competition import Competition, FoldDefaults

COMPETITION = Competition(
    name={name},
    title={quoted_title},
{fields}
    kaggle_slug={quoted_slug},
    host="kaggle",
)
'''

BASELINE_FILE = """\
# Hypothesis: none; this is the score that every other model of {title} has to beat.
# Command:    make experiment EXP={experiment}
# Expected:   seconds to minutes; write the CV score here after the first run
# Parent:     none
# Folds:      the competition's own, {folds}
name: {experiment}
competition: {name}
model:
  name: linear_baseline
data:
  name: table
"""

EXPERIMENT_FILE = """\
# Hypothesis: (what this changes, and why that should beat {parent})
# Command:    make experiment EXP={name}
# Expected:   (score), (minutes)
# Parent:     {parent}
# Only what differs from the parent stands below; `podium config {name}` shows the whole.
name: {name}
parent: {parent}
"""


def new_competition(
    workspace: Workspace,
    slug: str,
    *,
    id_column: str | None = None,
    label: str | None = None,
    task: str | None = None,
    metric: str | None = None,
    force: bool = False,
    competitions_dir: Path | None = None,
    console: Console | None = None,
) -> tuple[Path, Path]:
    """Infer the contract of data/<slug>/ and write the competition's file and its baseline experiment.

    Returns both paths. Raises `PodiumError`, with nothing written, where the data are missing or ambiguous, where a
    submission could not be written or scored, or where a file exists and `force` is not given.
    """
    name = competition_name(slug)
    competition_path = (competitions_dir / f"{name}.py") if competitions_dir else competition_file(name)
    if is_own_module(competition_path):
        cure = f"rename data/{slug}, and use that name"
        raise PodiumError(f"{slug}: {competition_path} is podium's own and is not replaced; {cure}")
    data_dir = workspace.data_dir(slug)
    if not data_dir.is_dir():
        raise PodiumError(
            f"{data_dir}: no such folder; run `podium data download {slug}`, "
            "or put train.csv, test.csv and sample_submission.csv there"
        )
    experiment = f"{name}_baseline"
    experiment_path = workspace.experiments / f"{experiment}.yaml"
    draft = sniff_competition(data_dir, slug, id_column=id_column, label=label, task=task, metric=metric)
    _check_answers(draft, name, data_dir)
    texts = {competition_path: _competition_file(draft, name), experiment_path: _baseline_file(draft, name, experiment)}
    for path in texts:
        if path.exists() and not force:
            raise PodiumError(f"{path}: exists; --force writes it anew, and your changes to it are lost")
    with ExitStack() as whole:  # both appear, or neither
        for path, text in texts.items():
            whole.enter_context(atomic_file(path)).write_text(text, encoding="utf-8")
    _print_decisions(console, draft)
    _print_lines(console, [f"wrote {competition_path}", f"wrote {experiment_path}"])
    _print_lines(
        console, ["next: make lock", f"      make experiment EXP={experiment}", f"      make submit EXP={experiment}"]
    )
    return competition_path, experiment_path


def new_experiment(workspace: Workspace, name: str, *, parent: str, console: Console | None = None) -> Path:
    """Write experiments/<name>.yaml, which starts as its parent; return its path.

    Raises `PodiumError` for a name that is not snake_case or is taken, and for a parent that is missing or has one.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise PodiumError(
            f"{name}: not a name for an experiment; use snake_case that says what it tries, mt5_adafactor"
        )
    taken = [address for address in experiment_names(workspace) if name in (address, run_name(address))]
    if taken:
        raise PodiumError(f"{name}: experiments/{taken[0]}.yaml has this name; choose another")
    address = find_experiment(workspace, parent)
    grandparent = read_experiment(workspace, address).get("parent")
    if grandparent is not None:
        raise PodiumError(f"{address}: has a parent itself; start from {grandparent}, and state what differs from that")
    path = workspace.experiments / f"{name}.yaml"
    write_text(path, EXPERIMENT_FILE.format(name=name, parent=address))
    _print_lines(console, [f"wrote {path}", f"next: edit it, then make lock; make experiment EXP={name}"])
    return path


def competition_name(slug: str) -> str:
    """The module of a Kaggle slug: "spaceship-titanic" -> "spaceship_titanic", "2024-trees" -> "kaggle_2024_trees"."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise PodiumError(
            f"{slug}: not a Kaggle slug; it is the last part of the competition's address, as in spaceship-titanic"
        )
    name = slug.replace("-", "_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"kaggle_{name}"


def _check_answers(draft: CompetitionDraft, name: str, data_dir: Path) -> None:
    """Hold answers of a model that knows nothing against the sample and the labels, as every run does at its start."""
    competition = Competition(
        name=name,
        title=_title(draft),
        task=draft.task,
        kaggle_slug=draft.kaggle_slug,
        host="kaggle",
        id_column=draft.id_column,
        input_columns=draft.input_columns,
        label_columns=draft.label_columns,
        class_names=draft.class_names,
        class_columns=draft.class_columns,
        metric=draft.metric,
        folds=FoldDefaults(draft.folds, num_folds=NUM_FOLDS),
    )
    check_sample(competition, competition.load_sample(data_dir))
    truth = _labelled_rows(competition, KaggleFiles(data_dir))
    check_labels_can_be_scored(with_grades(competition, find_grades(competition, truth)), truth)


def _labelled_rows(competition: Competition, files: KaggleFiles) -> DataFrame:
    """Ids and labels of the training rows in canonical columns; the inputs may be larger than memory."""
    labels = {
        frame_column: check_labels(
            files.column("train", column), competition.task, competition.class_names, files.path("train")
        )
        for frame_column, column in zip(competition.frame_labels, competition.label_columns, strict=True)
    }
    return DataFrame({"id": files.column("train", competition.id_column), **labels})


def _competition_file(draft: CompetitionDraft, name: str) -> str:
    title = _title(draft)
    fields = [
        _field(draft, "task", _literal(draft.task)),
        _field(draft, "id_column", _literal(draft.id_column)),
        _field(draft, "input_columns", draft.input_columns),
        _field(draft, "label_columns", draft.label_columns),
    ]
    if draft.class_names:
        fields.append(_field(draft, "class_names", draft.class_names))
    if draft.class_columns:
        fields.append(_field(draft, "class_columns", draft.class_columns))
    fields.append(_field(draft, "metric", _literal(draft.metric)))
    folds = f"FoldDefaults(name={_literal(draft.folds)}, num_folds={NUM_FOLDS})"
    fields.append("".join(_comment(hint) for hint in draft.hints) + _field(draft, "folds", folds))
    return COMPETITION_FILE.format(
        title=title,
        slug=draft.kaggle_slug,
        task=draft.task.replace("_", " "),
        inputs="1 column" if len(draft.input_columns) == 1 else f"{len(draft.input_columns)} columns",
        name=_literal(name),
        quoted_title=_literal(title),
        quoted_slug=_literal(draft.kaggle_slug),
        fields="\n".join(fields),
    )


def _baseline_file(draft: CompetitionDraft, name: str, experiment: str) -> str:
    folds = f"{NUM_FOLDS} {draft.folds} folds"
    return BASELINE_FILE.format(title=_title(draft), experiment=experiment, name=name, folds=folds)


def _title(draft: CompetitionDraft) -> str:
    return draft.kaggle_slug.replace("-", " ").capitalize()


def _field(draft: CompetitionDraft, name: str, value: str | Sequence[str]) -> str:
    """One keyword argument under the reason for it, broken as ruff breaks what is too long for a line."""
    reason = _comment(draft.reasons[name]) if name in draft.reasons else ""
    if isinstance(value, str):
        return f"{reason}    {name}={value},"
    literals = [_literal(part) for part in value]
    line = f"    {name}=({', '.join(literals)}{',' if len(literals) == 1 else ''}),"
    if len(line) > LINE_LENGTH:
        line = "\n".join([f"    {name}=(", *(f"        {literal}," for literal in literals), "    ),"])
    return reason + line


def _comment(sentence: str) -> str:
    return textwrap.fill(sentence, LINE_LENGTH, initial_indent="    # ", subsequent_indent="    # ") + "\n"


def _literal(text: str) -> str:
    """A Python string in double quotes, unless single ones spare a backslash."""
    quoted = repr(text)
    return quoted if '"' in quoted else f'"{quoted[1:-1]}"'


def _print_decisions(console: Console | None, draft: CompetitionDraft) -> None:
    for name, reason in draft.reasons.items():
        value = getattr(draft, name)
        shown = value if isinstance(value, str) else ", ".join(value[:8]) + (", …" if len(value) > 8 else "")
        _print_lines(console, [f"{name:<14} {shown}: {reason}"])
    _print_lines(console, [f"look at        {hint}" for hint in draft.hints])


def _print_lines(console: Console | None, lines: Sequence[str]) -> None:
    for line in lines:
        say(line, console)
