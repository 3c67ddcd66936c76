"""The one writer of a submission: onto its run, into the ledger and onto the tracker, and what was left undone as well.

The host has it first: a line of the local board, or Kaggle's list. Then it is written in this order: the intent and
the run's submissions.jsonl, the ledger, the tracker. Each step writes only what is not there yet, so that `settle`
takes the same steps again for whatever a kill, a full disk or a tracker that was away has left undone. It compares what
it can read (boards, runs, ledger), and goes on from the intents for what it cannot: whether Kaggle took it, and whether
the tracker was told. With nothing to do it reads a few small files.
"""

import glob
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.competitions.competition import Competition
from pipelines.competitions.loading import load_competition
from pipelines.competitions.local_host import BoardLine, LocalHost, Receipt, read_board
from pipelines.errors import PodiumError
from pipelines.kaggle.client import KaggleClient, KaggleSubmission
from pipelines.kaggle.submissions import error_class, find_sent
from pipelines.kernels.pushes import PushLog
from pipelines.kernels.submitted_kernel import SubmittedKernel
from pipelines.runs.run import Run, run_place
from pipelines.runs.submission import Host, Status, Submission, note_submission, read_submissions
from pipelines.submissions.journal import Intent, Journal, OpenIntent, Stage
from pipelines.submissions.ledger import Ledger, enter_submission, is_entered
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.tracking.place import NOT_TRACKED, Backend
from pipelines.workspace import Workspace

# So long Kaggle may take to list what it took.
FRESH = timedelta(minutes=5)

Key = tuple[Path, Host, int]


@dataclass
class Writer:
    """Writes submissions of one checkout, and says on the console what could not be written."""

    workspace: Workspace
    console: Console

    @property
    def journal(self) -> Journal:
        return Journal(self.workspace)

    def write(self, run: Run, submission: Submission, intent: OpenIntent | None) -> LedgerEntry | None:
        """Onto the run and into the ledger; the record, None where the ledger could not be written.

        Raises PodiumError where the disk takes neither intent nor run: the next command goes on from the host.
        """
        try:
            if intent is not None:
                intent.note(ref=submission.ref, status=Stage(submission.status))
            note_submission(run.submissions_file, submission)
        except OSError as error:
            reason = f"{error.filename or run.submissions_file}: {error.strerror or error}"
            raise PodiumError(
                f"submission {submission.ref} was made, but {reason}; free some space or permissions; the next "
                "`podium submit` completes its record, without sending it again"
            ) from error
        return self._enter(run, submission)

    def finish(self, run: Run, submission: Submission, entered: LedgerEntry | None, intent: OpenIntent | None) -> bool:
        """Tell the tracker what `write` has written, and strike the intent out; False where something is left to do."""
        is_told = self._tell_tracker(run, submission, entered.tags() if entered else {})
        if entered is None or not is_told:
            return False
        if intent is not None:
            intent.strike()
        return True

    def _enter(self, run: Run, submission: Submission) -> LedgerEntry | None:
        try:
            return enter_submission(self.workspace, run, submission, kernel=self._kernel_of(submission))
        except (OSError, PodiumError) as error:
            self.say(
                f"the ledger could not be written ({error}); the score stands in {run.submissions_file}, and the next "
                "`podium submit` completes the ledger"
            )
            return None

    def _kernel_of(self, submission: Submission) -> SubmittedKernel | None:
        """What is known of the kernel's version that wrote it."""
        if submission.kernel is None:
            return None
        version = submission.kernel
        push = PushLog(self.workspace, version.kernel.slug).find(version=version.version)
        return SubmittedKernel.pushed(push) if push is not None else None

    def _tell_tracker(self, run: Run, submission: Submission, more_tags: Mapping[str, str]) -> bool:
        """Write lb/public, lb/<extra metric>, the ref and the ledger's tags onto the tracker's run; say if it fails."""
        main = load_competition(run.competition).metric
        metrics = {f"lb/{'public' if name == main else name}": score for name, score in submission.public.items()}
        if main in (submission.private or {}):
            metrics["lb/private"] = (submission.private or {})[main]
        tags = {"submission.ref": str(submission.ref), "submission.host": str(submission.host), **more_tags}
        tags["submission.status"] = str(submission.status)
        tags |= {"submission.error_class": submission.error_class} if submission.error_class else {}
        tags |= {"submission.kernel": str(submission.kernel)} if submission.kernel else {}
        try:
            from pipelines.tracking.opening import kept_elsewhere, reopen_tracker, send_left

            place = run.record.tracking or NOT_TRACKED
            tracker = reopen_tracker(self.workspace, run.path, place, mode=run.mode, say=self.say)
            tracker.log_metrics(metrics)
            tracker.log_tags(tags)
            tracker.finish("FINISHED")
            reason = f"{tracker.num_unsent} entries wait in tracking/" if tracker.num_unsent else ""
            if not reason and (elsewhere := kept_elsewhere(self.workspace, tracker)):
                self.say(f"the score of run {run.id} went to {elsewhere}, where its MLflow run is")
            elif not reason and tracker.backend is Backend.MLFLOW:
                send_left(self.workspace, self.say, only_here=True)
        except Exception as error:  # whatever a tracking store may raise, the score is not lost by it
            reason = " ".join(str(error).split()) or type(error).__name__
        if reason:
            self.say(
                f"the tracker could not be told ({reason}), which the next `podium submit` tries again; the score "
                f"stands in {run.submissions_file}"
            )
        return not reason

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, soft_wrap=True)


def local_submission(rules: Competition, receipt: Receipt) -> Submission:
    """What a run keeps of a line of the local host's board; its private scores only where the receipt shows them."""
    line = receipt.line
    return Submission(
        time=line.time,
        host=Host.LOCAL,
        competition=rules.name,
        ref=line.ref,
        description=line.description,
        sha256=line.sha256,
        kernel=line.kernel,
        status=Status.COMPLETE,
        public=receipt.public,
        private=receipt.private,
        place=receipt.place,
        rows=receipt.num_rows,
    )


def told_by_kaggle(state: KaggleSubmission, rules: Competition) -> dict[str, Any]:
    """The fields of a submission that Kaggle tells by and by."""
    return {
        "status": Status(state.status),
        "public": {} if state.public is None else {rules.metric: state.public},
        "private": None if state.private is None else {rules.metric: state.private},
        "error": state.error,
        "error_class": error_class(state.error) if state.status == Status.ERROR else "",
    }


def intent_of(workspace: Workspace, run: Run, submission: Submission) -> dict[str, Any]:
    """The fields of an intent that goes on with a submission."""
    kept = ("host", "competition", "ref", "sha256", "kernel", "is_code", "description", "time")
    facts = {name: getattr(submission, name) for name in kept}
    return facts | {"run": run_name(workspace, run.path), "status": Stage(submission.status)}


def run_name(workspace: Workspace, folder: Path) -> str:
    """A run's folder as an intent names it: below runs/, or whole where it lies elsewhere."""
    try:
        return folder.resolve().relative_to(workspace.runs.resolve()).as_posix()
    except ValueError:
        return str(folder.resolve())


def find_submitter(workspace: Workspace, experiment: str, run: str) -> Run | None:
    """The run that a board's line names, where it is here."""
    usual = run_place(workspace.runs, experiment, run)
    folders = [usual] if (usual / "run.json").is_file() else []
    folders = folders or [path.parent for path in workspace.runs.glob(f"*/{glob.escape(run)}/run.json")]
    found = Run.look(folders[0]) if len(folders) == 1 else None
    return None if found is None or found.damage else found


def settle(workspace: Workspace, console: Console, client: KaggleClient | None = None) -> None:
    """Complete the records of all earlier submissions of this checkout. With a client Kaggle's are looked for as well.

    Does nothing a second time. What still cannot be done is said in one line each and waits for the next call.
    """
    if workspace.runs.is_dir():
        _settle(_Settling(Writer(workspace, console), client))


def settle_here(workspace: Workspace, console: Console | None = None) -> None:
    """As `settle`, but for the tracker and Kaggle, which may be far: boards, runs and ledger, and without waiting.

    Commands that read the ledger begin with it; what it says is no part of their answer and goes to stderr.
    """
    writer = Writer(workspace, console or Console(stderr=True))
    if not writer.journal.folder.is_dir():
        return  # nothing was ever submitted from here
    try:
        _settle(_Settling(writer, None, is_near=True))
    except (PodiumError, OSError) as error:
        writer.say(f"earlier submissions could not be settled ({error}); the next `podium submit` tries again")


def _settle(settling: "_Settling") -> None:
    journal = settling.journal
    with journal.settling(wait=not settling.is_near) as is_alone:
        if not is_alone:
            return
        boards = _read_boards(settling.writer.workspace)
        # Read after the boards: a line of a command that is at work is its own to record.
        settling.busy = {intent.run for intent in journal.others()}
        with journal.abandoned() as intents:
            settling.settle(boards, intents)


@dataclass
class _Settling:
    """One pass; where it `is_near` neither tracker nor Kaggle is asked.

    `done` holds the submissions that were completed in it, `waiting` those that an intent stands for.
    """

    writer: Writer
    client: KaggleClient | None
    is_near: bool = False
    busy: set[str] = field(default_factory=set)
    done: set[Key] = field(default_factory=set)
    waiting: set[Key] = field(default_factory=set)

    @property
    def workspace(self) -> Workspace:
        return self.writer.workspace

    @property
    def journal(self) -> Journal:
        return self.writer.journal

    def settle(self, boards: Mapping[str, Sequence[BoardLine]], intents: Sequence[OpenIntent]) -> None:
        for intent in (opened.intent for opened in intents):
            if intent.ref is not None:
                self.waiting.add((self.workspace.runs / intent.run, intent.host, intent.ref))
        for slug, lines in boards.items():
            for line in lines:
                self._complete_run(slug, line)
        for path in sorted(self.workspace.runs.glob("*/*/submissions.jsonl")):
            run = Run.look(path.parent)
            if not run.damage and run_name(self.workspace, run.path) not in self.busy:
                self._complete_ledger(run)
        for opened in intents if not self.is_near else ():
            self._go_on(opened)

    def _complete_run(self, slug: str, line: BoardLine) -> None:
        """Add a line of the board to its run, where the run is here and lacks it."""
        run = find_submitter(self.workspace, line.experiment, line.run)
        if run is None or run_name(self.workspace, run.path) in self.busy:
            return
        known = {(known.host, known.ref, known.sha256) for known in self._submissions(run)}
        if (Host.LOCAL, line.ref, line.sha256) not in known:
            rules = load_competition(run.competition)
            receipt = LocalHost(self.workspace.local_host(slug), rules).receipt(line.ref)
            self._complete(run, local_submission(rules, receipt))

    def _complete_ledger(self, run: Run) -> None:
        ledger = Ledger(self.workspace.ledger)
        for submission in self._submissions(run):
            try:
                is_complete = is_entered(ledger.of_submission(submission, run.id), submission)
            except (PodiumError, OSError) as error:
                self.writer.say(str(error))
                continue
            if not is_complete:
                self._complete(run, submission)

    def _complete(self, run: Run, submission: Submission, intent: OpenIntent | None = None) -> bool:
        """Once a pass. What the tracker is to be told stands in an intent before the ledger says it is complete."""
        key = (run.path, submission.host, submission.ref)
        if key in self.done:
            if intent is not None:
                intent.strike()
            return True
        with ExitStack() as held:
            if intent is None and key not in self.waiting:
                intent = held.enter_context(self.journal.begun(**intent_of(self.workspace, run, submission)))
            entered = self.writer.write(run, submission, intent)
            if self.is_near and entered is not None:
                self.done.add(key)
                self.writer.say(f"{submission.address}: now in the ledger, where an earlier command left it out")
                return True
            if self.is_near or not self.writer.finish(run, submission, entered, intent):
                return False
        self.done.add(key)
        self.writer.say(f"{submission.address}: the record that an earlier command left unfinished is complete")
        return True

    def _go_on(self, opened: OpenIntent) -> None:
        intent = opened.intent
        folder = self.workspace.runs / intent.run
        run = Run.look(folder)
        if run.damage:
            self.writer.say(f"{folder}: is gone or damaged; its submission of {intent.time} is not followed up")
            opened.strike()
            return
        submissions = [submission for submission in self._submissions(run) if intent.is_about(submission)]
        if intent.host is Host.KAGGLE and intent.was_sent and not submissions:
            if self.client is None:
                return
            submissions = self._found_on_kaggle(self.client, intent)
        if not submissions:
            opened.strike()  # nobody took it
        for submission in submissions:
            self._complete(run, submission, opened)

    def _found_on_kaggle(self, client: KaggleClient, intent: Intent) -> list[Submission]:
        """What Kaggle took before this could be written down; none where it took nothing."""
        rules = load_competition(intent.competition)
        state = (
            client.submission(intent.ref)
            if intent.ref is not None
            else find_sent(
                client,
                rules.kaggle_slug,
                description=intent.description,
                last_ref=intent.last_ref or 0,
                known=self._known_refs(),
                is_fresh=datetime.now(UTC) - datetime.fromisoformat(intent.time) < FRESH,
            )
        )
        kept = ("time", "host", "competition", "description", "sha256", "kernel", "is_code")
        facts: dict[str, Any] = {name: getattr(intent, name) for name in kept}
        return [] if state is None else [Submission(**facts, ref=state.ref, **told_by_kaggle(state, rules))]

    def _known_refs(self) -> set[int]:
        """Kaggle's refs that some run of this checkout has already."""
        paths = self.workspace.runs.glob("*/*/submissions.jsonl")
        return {known.ref for path in paths for known in read_submissions(path) if known.host is Host.KAGGLE}

    def _submissions(self, run: Run) -> list[Submission]:
        try:
            return read_submissions(run.submissions_file)
        except PodiumError as error:
            self.writer.say(str(error))
            return []


def _read_boards(workspace: Workspace) -> dict[str, list[BoardLine]]:
    """The lines of every board; one that is damaged is named when something is submitted to it."""
    boards = {}
    for path in sorted((workspace.data / "local_host").glob("*/leaderboard.jsonl")):
        with suppress(PodiumError, OSError):
            boards[path.parent.name] = read_board(path.parent)
    return boards
