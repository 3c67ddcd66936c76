"""The embedded leaderboard: the whole loop up to a place among baselines, without an account or a network.

It behaves like Kaggle where that shapes how one works: a public part of the answers is shown and a private part kept
back, submissions are limited per UTC day, a file it refuses costs nothing, and each one that is handed in counts.
The answers and the board's lines lie in a folder of their own, which nothing else reads. A line of leaderboard.jsonl is
the fact that a submission was made: whatever else records it is completed from there.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from components.files.atomic import write_bytes, write_text
from components.files.json_lines import locked_lines
from components.metrics.table import METRICS
from pipelines.addresses import KernelVersion, RecordedVersion
from pipelines.competitions.answers import answer_columns, answers_are_numbers
from pipelines.competitions.competition import Competition
from pipelines.competitions.submission_file import as_typed_like, check_frame, is_numeric
from pipelines.errors import PodiumError
from pipelines.records import DamagedRecord, Digest, Name, Record, Time

Scores = Mapping[str, float]
BOARD = "leaderboard.jsonl"


@dataclass(frozen=True, kw_only=True)
class BoardLine(Record):
    """One submission on the board, by every metric of its competition. `kernel` is the version that wrote the file."""

    ref: int
    time: Time
    run: Name
    experiment: str = ""
    description: str = ""
    sha256: Digest
    kernel: RecordedVersion | None = None
    public: Scores
    private: Scores


@dataclass(frozen=True)
class Receipt:
    """What a submission earned. `place` is its run's place among the `num_rows` rows of the leaderboard.

    `line` is the board's. `public` and `private` map the competition's metric, then the extra ones, to scores;
    `private` is None unless it was asked for. `same_as` is the ref of an earlier submission of the very same bytes.
    Where `is_former` nothing was entered: the receipt is that of the earlier one.
    """

    line: BoardLine
    public: Scores
    private: Scores | None
    place: int
    num_rows: int
    remaining_today: int
    same_as: int | None
    is_former: bool = False

    @property
    def ref(self) -> int:
        """The submission's number on this board."""
        return self.line.ref


@dataclass(frozen=True)
class LeaderboardRow:
    """A run by its best submission, or a baseline (`run` and `ref` are None); `private` only where revealed."""

    place: int
    name: str
    public: Scores
    private: Scores | None
    run: str | None = None
    ref: int | None = None
    time: str | None = None

    @property
    def is_baseline(self) -> bool:
        return self.run is None


def utc_now() -> datetime:
    """The host's clock; tests hand in another."""
    return datetime.now(UTC)


class LocalHost:
    """The leaderboard of one embedded competition, in the folder that holds its answers."""

    def __init__(self, folder: Path, competition: Competition, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder = folder
        self.competition = competition
        self._board = Board(folder, competition, clock)
        self._solution, self._solution_digest = self._load_solution()

    def submit(
        self,
        path: Path,
        *,
        run: str,
        experiment: str,
        description: str,
        reveal: bool = False,
        again: bool = True,
        kernel: KernelVersion | None = None,
    ) -> Receipt:
        """Score a file, enter it on the board and keep a copy; without `again` not where its bytes stand there.

        `kernel` is the version that wrote it, where one did. Raises `PodiumError` when today's submissions are used up,
        for a file that does not fit the answers, and where the disk refuses; a refused file is not counted. Safe
        against other processes that submit at the same moment.
        """
        content = _read_bytes(path)
        digest = hashlib.sha256(content).hexdigest()
        lines = self._board.lines()
        if not again and (former := self._find(lines, digest)) is not None:
            return self._receipt(lines, reveal, of=former, is_former=True)
        self._board.check_limit(lines)
        public, private = self._score(content, str(path))
        new = BoardLine(
            ref=0,  # the next one, once the board is locked; so is the time
            time=utc_now().isoformat(timespec="seconds"),
            run=run,
            experiment=experiment,
            description=description,
            sha256=digest,
            kernel=kernel,
            public=public,
            private=private,
        )
        lines, is_former = self._board.add(new, content, known=None if again else digest)
        return self._receipt(lines, reveal, of=self._find(lines, digest) if is_former else None, is_former=is_former)

    def receipt(self, ref: int) -> Receipt:
        """The receipt that a submission had when it was made."""
        return self._receipt([line for line in self._board.lines() if line.ref <= ref], False)

    def baselines(self) -> list[LeaderboardRow]:
        """The baselines alone, best first."""
        return self._rank([], False)

    def leaderboard(self, *, reveal: bool = False) -> list[LeaderboardRow]:
        """Baselines and runs, best first; ordered by the private scores once they are revealed.

        A run stands there once, with its best submission; equal scores are ordered baselines first, then by time.
        """
        return self._rank(self._board.lines(), reveal)

    def remaining_today(self) -> int:
        """How many submissions are left until midnight UTC."""
        return self._board.remaining(self._board.lines())

    @staticmethod
    def _find(lines: Sequence[BoardLine], digest: str) -> BoardLine | None:
        """The newest submission of these bytes."""
        return next((line for line in reversed(lines) if line.sha256 == digest), None)

    def _receipt(
        self, lines: Sequence[BoardLine], reveal: bool, *, of: BoardLine | None = None, is_former: bool = False
    ) -> Receipt:
        """The receipt of a line, by default the last one."""
        line = self._scored(of or lines[-1])
        rows = self._rank(lines, reveal)
        earlier = [other.ref for other in lines if other.sha256 == line.sha256]
        return Receipt(
            line=line,
            public=line.public,
            private=line.private if reveal else None,
            place=next(row.place for row in rows if row.run == line.run),
            num_rows=len(rows),
            remaining_today=self._board.remaining(lines),
            same_as=earlier[0] if len(earlier) > 1 else None,
            is_former=is_former,
        )

    def _scored(self, line: BoardLine) -> BoardLine:
        """With its scores as they stand; where the deciding metric was changed since, those of the copy that was kept.

        A copy that is gone, or does not fit any more, has no score by the new metric.
        """
        metric = self.competition.metric
        if metric in line.public and metric in line.private:
            return line
        copy = self.folder / "submissions" / f"{line.ref:05d}.csv"
        try:
            public, private = self._score(copy.read_bytes(), str(copy))
        except (OSError, PodiumError):
            none = {metric: float("nan")}
            return replace(line, public=none | dict(line.public), private=none | dict(line.private))
        return replace(line, public=public, private=private)

    def _rank(self, lines: Sequence[BoardLine], reveal: bool) -> list[LeaderboardRow]:
        def badness(row: LeaderboardRow) -> float:
            score = float(((row.private if reveal else row.public) or {})[self.competition.metric])
            if score != score:  # a metric may be undefined on a part of the rows: such a row stands last
                return float("inf")
            return -score if METRICS[self.competition.metric].greater_is_better else score

        best: dict[str, LeaderboardRow] = {}
        for line in map(self._scored, lines):
            row = LeaderboardRow(0, line.experiment, line.public, line.private, line.run, line.ref, line.time)
            if line.run not in best or badness(row) < badness(best[line.run]):
                best[line.run] = row
        candidates = sorted([*self._baselines(), *best.values()], key=badness)
        return [
            replace(row, place=place, private=row.private if reveal else None)
            for place, row in enumerate(candidates, start=1)
        ]

    def _score(self, content: bytes, source: str) -> tuple[dict[str, float], dict[str, float]]:
        """Public and private scores of a file's bytes, by every metric of the competition."""
        try:
            frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8")
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise PodiumError(f"{source}: not a CSV file ({error}); write it again with `make predict`") from None
        reference = self._solution[self._submission_columns([str(column) for column in frame.columns])]
        frame = as_typed_like(frame, reference)
        check_frame(frame, reference, self.competition, source=source)
        parts = []
        for part in ("public", "private"):
            rows = (self._solution["usage"].str.lower() == part).to_numpy()
            solution = self._solution.loc[rows].drop(columns="usage").reset_index(drop=True)
            parts.append(self.competition.score(solution, frame.loc[rows].reset_index(drop=True)))
        return parts[0], parts[1]

    def _submission_columns(self, found: Sequence[str]) -> list[str]:
        """The solution's columns that a submission has: ids, answers, and what the sample repeats beside them.

        The sample may repeat the column that the metric groups by, which the solution has for its own sake.
        """
        hidden = {"usage"}
        if self.competition.metric_group and self.competition.metric_group not in found:
            hidden.add(self.competition.metric_group)
        return [column for column in self._solution.columns if column not in hidden]

    def _load_solution(self) -> tuple[pd.DataFrame, str]:
        path = self.folder / "solution.csv"
        cure = f"make it with: podium data prepare {self.competition.name}"
        if not path.is_file():
            raise PodiumError(f"{path}: no such file: the answers of {self.competition.name} are not here; {cure}")
        content = path.read_bytes()
        text = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8")
        typed = pd.read_csv(io.BytesIO(content), keep_default_na=False, encoding="utf-8")
        needed = [self.competition.id_column, "usage", *filter(None, [self.competition.metric_group])]
        for column in needed:
            if column not in text.columns:
                raise PodiumError(f"{path}: column {column} is missing; {cure}")
        answers = answer_columns(self.competition, [str(name) for name in text.columns if name != "usage"])
        has_numbers = answers_are_numbers(self.competition, answers)
        numbers = {name: typed[name] for name in answers if has_numbers and is_numeric(typed[name])}
        return text.assign(**numbers), hashlib.sha256(content).hexdigest()

    def _baselines(self) -> list[LeaderboardRow]:
        """Rows of baselines/*.csv, scored by the code that scores runs; kept until file, answers or metrics change."""
        cache_path = self.folder / "baselines.json"
        cache = _read_cache(cache_path)
        rows: dict[str, dict[str, Any]] = {}
        for path in sorted((self.folder / "baselines").glob("*.csv")):
            content = path.read_bytes()
            parts = (content, self._solution_digest.encode(), repr(self._metrics()).encode())
            digest = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
            if isinstance(cache.get(path.stem), dict) and cache[path.stem].get("digest") == digest:
                rows[path.stem] = cache[path.stem]
            else:
                public, private = self._score(content, str(path))
                rows[path.stem] = {"digest": digest, "public": public, "private": private}
        if rows != cache:
            # It only saves time: a disk that does not take it costs nothing else.
            with suppress(OSError):
                write_text(cache_path, json.dumps(rows, indent=1))
        return [LeaderboardRow(0, name, row["public"], row["private"]) for name, row in rows.items()]

    def _metrics(self) -> tuple[str, ...]:
        return (self.competition.metric, *self.competition.extra_metrics)


class Board:
    """Every submission ever made, one JSON line each, only ever appended to; and how many more today allows."""

    def __init__(self, folder: Path, competition: Competition, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._path = folder / BOARD
        self._competition = competition
        self._clock = clock

    def lines(self) -> list[BoardLine]:
        """All submissions, oldest first; see `read_board`."""
        return read_board(self._folder)

    def remaining(self, lines: Sequence[BoardLine]) -> int:
        """Submissions left until midnight UTC."""
        today = self._clock().date()
        used = sum(datetime.fromisoformat(line.time).date() == today for line in lines)
        return max(self._competition.daily_limit - used, 0)

    def check_limit(self, lines: Sequence[BoardLine]) -> None:
        """Raises `PodiumError`, with the time when the host opens again, when today's submissions are used up."""
        if self.remaining(lines) > 0:
            return
        now = self._clock()
        opens = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
        minutes = -(-int((opens - now).total_seconds()) // 60)
        raise PodiumError(
            f"{self._competition.name}: all {self._competition.daily_limit} submissions of {now:%Y-%m-%d} (UTC) are "
            f"used; the host opens again at {opens:%Y-%m-%d %H:%M} UTC, in {minutes // 60} h {minutes % 60} min"
        )

    def add(self, new: BoardLine, content: bytes, *, known: str | None = None) -> tuple[list[BoardLine], bool]:
        """Enter a submission under the next ref, now; return all lines, the new one last.

        Counting today's lines and adding one happen under a lock, so two processes cannot share the last slot. The
        file is copied before its line is written: the board never names a file that is not there. Where the sha256
        `known` stands there by now nothing is entered, and True is returned beside the lines. Raises PodiumError,
        with nothing entered, where the disk refuses.
        """
        try:
            with locked_lines(self._path) as append:
                lines = self.lines()
                if known is not None and any(line.sha256 == known for line in lines):
                    return lines, True
                self.check_limit(lines)
                ref = max((line.ref for line in lines), default=0) + 1
                new = replace(new, ref=ref, time=self._clock().isoformat(timespec="seconds"))
                write_bytes(self._folder / "submissions" / f"{ref:05d}.csv", content)
                append(new.line())
        except OSError as error:
            place = error.filename or self._path
            cure = "free some space or permissions and submit again"
            raise PodiumError(f"{place}: {error.strerror or error}; nothing was submitted; {cure}") from error
        return [*lines, new], False


def read_board(folder: Path) -> list[BoardLine]:
    """The lines of a host's board, oldest first. Raises DamagedRecord naming line and field of one that is damaged.

    A last line that a kill has torn counts as not written.
    """
    try:
        return BoardLine.read_lines(folder / BOARD)
    except DamagedRecord as error:
        raise DamagedRecord(f"{error}; delete that line (its file stays under submissions/)") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PodiumError(f"{path}: cannot be read ({error.strerror}); `make predict` writes it") from None


def _read_cache(path: Path) -> dict[str, Any]:
    """The scores of the baselines that were kept; none where they cannot be read, for they are computed anew then."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
