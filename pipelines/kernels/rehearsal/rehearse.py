"""`podium kernel rehearse`: a built kernel run offline as Kaggle will run it, before that costs quota or a submission.

First on the public test set, in the new mount layout and in the old; then as the hidden rerun, with more rows under
other ids and with none. What it writes must be what `podium predict` writes here, byte for byte.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console

from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.submission_file import check_submission, load_submission
from pipelines.errors import PodiumError
from pipelines.kernels.built_kernel import BuiltKernel, load_built_kernel
from pipelines.kernels.inputs import model_mount
from pipelines.kernels.kernel_file import KernelFile, load_kernel_file
from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.rehearsal.hidden_rerun import lay_out_data
from pipelines.kernels.rehearsal.kaggle_image import obtain_image_python
from pipelines.kernels.rehearsal.report import CaseReport, Image, RehearsalReport
from pipelines.kernels.rehearsal.sandbox import SandboxReport, run_kernel
from pipelines.kernels.session import REHEARSAL as IS_REHEARSAL
from pipelines.kernels.session import TIME_LIMIT
from pipelines.kernels.source_bundle import project_root
from pipelines.runs.run import Run
from pipelines.screen import Column, format_bytes, format_duration, print_table
from pipelines.training import prediction
from pipelines.workspace import Workspace

TOLERANCE = 1e-5
BATCH = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_URL_BASE": "https://www.kaggle.com"}
RERUN = {"KAGGLE_IS_COMPETITION_RERUN": "1"}
SHOWN_FILES = 200


@dataclass(frozen=True)
class Case:
    """One run of a rehearsal: which test set, in which layout, and what is special about it."""

    name: str
    data: str
    layout: str
    environment: Mapping[str, str] = field(default_factory=dict)
    attached: str | None = None
    """The case whose output is attached as the kernel's own former one."""
    same_as: str | None = None
    """The case whose submission this one's must equal."""
    writes: bool = True


PREDICT_CASES = (
    Case("public", "public", "new"),
    Case("public-old", "public", "old", same_as="public"),
    Case("hidden", "larger", "new", RERUN),
    Case("hidden-empty", "empty", "old", RERUN),
)
# A training is rehearsed cut to a few steps and to few test rows: what is tried is the way, not the score.
TRAIN_CASES = (
    Case("public", "few", "new"),
    Case("stopped", "few", "old", {TIME_LIMIT: "0"}, writes=False),
    Case("resumed", "few", "old", attached="stopped", same_as="public"),
    Case("hidden", "few-larger", "new", RERUN),
    Case("hidden-empty", "empty", "old", RERUN),
)


@dataclass
class _Verdict:
    """What is found of a case's submission; `problem` is empty where nothing is wrong."""

    submission: str = ""
    agreement: str = ""
    problem: str = ""


def rehearse(
    workspace: Workspace,
    slug: str,
    *,
    image: Image = Image.HERE,
    attach: Mapping[str, Path] | None = None,
    console: Console | None = None,
) -> RehearsalReport:
    """Run every case of a built kernel, print the table, write rehearsal.json beside the kernel, and return it.

    Image.KAGGLE uses Kaggle's library versions. `attach` maps the mounts of sources that are not built here to
    folders. Raises PodiumError at the end when a case went wrong, naming the first and its log.
    """
    console = console or Console(soft_wrap=True)
    kernel, file = load_built_kernel(workspace, slug), load_kernel_file(workspace, slug)
    python = obtain_image_python(workspace) if image is Image.KAGGLE else None
    place = workspace.build / "rehearsals" / slug / image
    shutil.rmtree(place, ignore_errors=True)
    room = _Room(workspace, kernel, file, load_competition(kernel.manifest.competition), place, image, python)
    room.attach(attach or {})
    results: list[CaseReport] = []
    isolation: tuple[str, ...] = ()
    for case in TRAIN_CASES if file.mode is KernelMode.TRAIN else PREDICT_CASES:
        console.print(f"{case.name}: {case.data} test set, {case.layout} layout ...", highlight=False)
        report, result = room.run(case)
        isolation = report.not_isolated
        results.append(result)
        if result.problem:
            break
    summary = _summarise(kernel, image, results, isolation)
    summary.write(kernel.folder / image.report_name)
    _print(console, results, isolation)
    if failed := next((result for result in results if result.problem), None):
        raise PodiumError(f"{slug}: rehearsal {failed.name}: {failed.problem}; its log: {failed.log}")
    console.print(f"rehearsed as {image}; {kernel.folder / image.report_name}", highlight=False)
    return summary


# -- one case --------------------------------------------------------------------------------------------------------


class _Room:
    """What the cases of one rehearsal share: inputs by test set, and what this machine says of each."""

    def __init__(
        self,
        workspace: Workspace,
        kernel: BuiltKernel,
        file: KernelFile,
        competition: Competition,
        place: Path,
        image: Image,
        python: Path | None,
    ) -> None:
        self.workspace, self.kernel, self.file, self.competition = workspace, kernel, file, competition
        self.place, self.image, self.python = place, image, python
        self.data_mount = self._find_data_mount()
        self.others = {mount: folder for mount, folder in kernel.own_inputs().items() if mount != self.data_mount}
        self.rows: dict[str, int] = {}

    def _find_data_mount(self) -> str:
        for dataset in self.kernel.datasets:
            if dataset.kind == "data":
                return dataset.name.dataset_mount
        return f"competitions/{self.competition.kaggle_slug}"

    def attach(self, given: Mapping[str, Path]) -> None:
        """Add the sources that others own; every one of the metadata must be there."""
        self.others |= {
            model_mount(mount.removeprefix("models/")) if mount.startswith("models/") else mount: folder
            for mount, folder in given.items()
        }
        metadata = self.kernel.metadata
        wanted = [f"datasets/{source}" for source in metadata.dataset_sources]
        wanted += [model_mount(source) for source in metadata.model_sources]
        wanted += [f"notebooks/{source}" for source in self.file.kernel_sources]
        wanted += [f"competitions/{source}" for source in metadata.competition_sources]
        for mount in wanted:
            if mount not in self.others and mount != self.data_mount:
                raise PodiumError(
                    f"{mount}: a source that was not built here; give its folder: --attach {mount}=FOLDER"
                )

    def data(self, kind: str) -> Path:
        """The competition's files with one of the test sets, made on first use."""
        folder = self.place / "data" / kind
        if kind not in self.rows:
            source = self.workspace.data_dir(self.competition.kaggle_slug)
            self.rows[kind] = lay_out_data(self.competition, source, folder, kind)
        return folder

    def run(self, case: Case) -> tuple[SandboxReport, CaseReport]:
        folder, data = self.place / case.name, self.data(case.data)
        inputs = self.others | {self.data_mount: data}
        if case.attached:
            inputs[self.kernel.kernel.output_mount] = self.place / case.attached / "working"
        report = run_kernel(
            self.kernel.folder,
            inputs,
            folder / "working",
            layout=case.layout,
            environment=BATCH | {IS_REHEARSAL: "1"} | dict(case.environment),
            timeout_s=3600 * self.file.time_limit_hours,
            memory_bytes=int(self.file.memory_gb * 1e9),
            python=self.python,
        )
        log = folder / f"{self.kernel.kernel.slug}.log"
        log.write_text(report.log, encoding="utf-8")
        if report.notebook is not None:
            (folder / self.kernel.code_file.name).write_text(json.dumps(report.notebook, indent=1), encoding="utf-8")
        verdict = _Verdict()
        try:
            self._judge(case, report, verdict)
        except PodiumError as error:
            verdict.problem = str(error)
        result = CaseReport(
            name=case.name,
            data=case.data,
            layout=case.layout,
            rows=self.rows[case.data],
            seconds=report.seconds,
            peak_bytes=report.peak_bytes,
            outputs=_list_files(report.working),
            log=str(log),
            **asdict(verdict),
        )
        return report, result

    def _judge(self, case: Case, report: SandboxReport, verdict: _Verdict) -> None:
        """Fill in what the submission is worth; PodiumError where the kernel or its submission is wrong."""
        if report.stopped_for:
            limits = {"timeout": f"{self.file.time_limit_hours} h", "memory": f"{self.file.memory_gb} GB"}
            raise PodiumError(f"stopped for its {report.stopped_for} (limit {limits[report.stopped_for]})")
        if not report.ok:
            raise PodiumError(_last_line(report.text))
        strange = [origin for origin in report.origins if Path(origin).is_relative_to(project_root())]
        if strange:
            raise PodiumError(f"imports {strange[0]} instead of the source it carries")
        written = report.working / "submission.csv"
        if not case.writes:
            verdict.submission = "none yet"
            return
        sample = self.competition.load_sample(self.data(case.data), may_be_empty=True)
        check_submission(load_submission(written, sample), sample, self.competition, source=str(written))
        verdict.submission = "checked"
        if case.same_as:
            other = self.place / case.same_as / "working" / written.name
            if other.read_bytes() != written.read_bytes():
                raise PodiumError(f"{written}: differs from {other}")
        verdict.agreement = self._compare(case, written)

    def _compare(self, case: Case, written: Path) -> str:
        """How the kernel's submission stands to the one this machine makes of the same run and data."""
        if self.file.mode is KernelMode.TRAIN:
            return f"bytes of {case.same_as}" if case.same_as else ""
        local = self.place / "local" / case.data / written.name
        if not local.is_file():
            run = Run.find(self.workspace.runs, f"{self.kernel.manifest.experiment}/{self.kernel.manifest.run}")
            prediction.main(run.path, self.data(case.data), local)
        if local.read_bytes() == written.read_bytes():
            return "equal bytes"
        difference = describe_difference(written, local)
        if self.image is Image.HERE or not difference.is_small:
            raise PodiumError(f"{written}: is not what `podium predict` writes, {local}: {difference.words}")
        return difference.words


def _list_files(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files[:SHOWN_FILES]}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing and was killed"


# -- comparison ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """`is_small` is whether other library versions explain it: numbers within 1e-5, texts only where two tie."""

    is_small: bool
    words: str


def describe_difference(written: Path, local: Path) -> Difference:
    """What differs between two submissions, cell by cell; the predictions beside them tell how near the texts were."""
    ours, theirs = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (local, written))
    shapes = [f"{len(frame)} rows of {', '.join(frame.columns)}" for frame in (theirs, ours)]
    if shapes[0] != shapes[1]:
        return Difference(False, " against ".join(shapes))
    if list(ours.iloc[:, 0]) != list(theirs.iloc[:, 0]):
        return Difference(False, "the ids stand in another order")
    largest, texts = 0.0, 0
    for column in ours.columns[1:]:
        numbers = [pd.to_numeric(frame[column], errors="coerce") for frame in (ours, theirs)]
        if numbers[0].notna().all() and not numbers[1].notna().all():
            return Difference(False, f"column {column}: {numbers[1].isna().sum()} cells hold no number")
        if all(series.notna().all() for series in numbers):
            largest = max(largest, float((numbers[0] - numbers[1]).abs().max()))
        else:
            texts += int((ours[column] != theirs[column]).sum())
    if not texts:
        words = f"numbers differ by at most {largest:.1e}" if largest else "the same cells, written otherwise"
        return Difference(largest <= TOLERANCE, words)
    gap = _score_gap(written, local)
    if gap is None:
        return Difference(False, f"{texts} of {len(ours)} texts differ, and no scores say how near")
    words = f"{texts} of {len(ours)} texts differ, their scores by at most {gap:.1e}"
    return Difference(max(largest, gap) <= TOLERANCE, words)


def _score_gap(written: Path, local: Path) -> float | None:
    """The largest difference between two models' numbers for a row: probabilities, or the score of what it wrote.

    None where there are no such numbers.
    """
    ours, theirs = (pd.read_parquet(path.with_name("test_predictions.parquet")) for path in (local, written))
    names = [name for name in ours.select_dtypes("number") if name in theirs]
    if not names or len(ours) != len(theirs) or ours.empty:
        return None
    return float((ours[names] - theirs[names]).abs().to_numpy().max())


# -- the report ------------------------------------------------------------------------------------------------------


def _summarise(
    kernel: BuiltKernel, image: Image, results: Sequence[CaseReport], not_isolated: Sequence[str]
) -> RehearsalReport:
    by_name = {result.name: result for result in results}
    startup = by_name["hidden-empty"].seconds if "hidden-empty" in by_name else None
    per_row = None
    if startup is not None:
        larger = by_name["hidden"]
        per_row = max(larger.seconds - startup, 0.0) / max(larger.rows, 1)
    return RehearsalReport(
        kernel=kernel.kernel,
        bundle_sha256=kernel.manifest.bundle_sha256,
        image=image,
        ok=not any(result.problem for result in results),
        not_isolated=tuple(not_isolated),
        startup_seconds=startup,
        seconds_per_row=per_row,
        peak_bytes=max(result.peak_bytes for result in results),
        cases=tuple(results),
    )


def _print(console: Console, results: Sequence[CaseReport], not_isolated: Sequence[str]) -> None:
    cells: dict[str, Callable[[CaseReport], str]] = {
        "case": lambda result: result.name,
        "layout": lambda result: result.layout,
        "rows": lambda result: f"{result.rows:,}",
        "time": lambda result: format_duration(result.seconds),
        "memory": lambda result: format_bytes(result.peak_bytes),
        "outputs": lambda result: str(len(result.outputs)),
        "submission": lambda result: result.submission,
        "against podium predict": lambda result: result.agreement or ("wrong" if result.problem else ""),
    }
    numbers = ("rows", "time", "memory", "outputs")
    columns = [Column(name, [cell(r) for r in results], is_number=name in numbers) for name, cell in cells.items()]
    print_table(console, columns)
    for words in not_isolated:
        console.print(f"not isolated: {words}", highlight=False)
