"""Competitions: files, rules, the day's budget, and submissions that are graded against answers nobody sees."""

import io
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaggle_standin.grading import Ungradable, grade
from kaggle_standin.protocol import Call, Refusal


@dataclass
class StandInCompetition:
    """A competition's files, rules and the user's submissions to it.

    With `answers` (id, label, Usage) submissions are graded, otherwise every one scores `public_score`. A code
    competition runs a kernel again with the files in `hidden` over the public ones and grades what it leaves.
    """

    files: dict[str, bytes]
    rules_accepted: bool = True
    max_daily: int = 5
    num_today: int = 0
    num_total: int = 0
    public_score: str = "0.81234"
    private_score: str = ""
    error: str = ""
    nested_zips: frozenset[str] = frozenset()
    archive: bytes | None = None
    answers: bytes | None = None
    is_code: bool = False
    is_offline: bool = False
    takes_kernels_by_api: bool = True
    hidden: dict[str, bytes] = field(default_factory=dict)


@dataclass
class CompetitionDesk:
    """Answers competitions.CompetitionApiService.

    A submission is unknown (404) for the first `num_unknown_polls` polls and PENDING for the next `num_pending_polls`.
    """

    folder: Path
    competitions: dict[str, StandInCompetition]
    desk: Any = None
    num_unknown_polls: int = 0
    num_pending_polls: int = 0
    page_size: int = 2
    num_polls: int = 0
    upload_status: int = 200
    uploads: dict[str, bytes] = field(default_factory=dict)
    submissions: dict[int, dict] = field(default_factory=dict)
    graded: dict[int, threading.Event] = field(default_factory=dict)

    def GetCompetition(self, call: Call) -> dict:  # noqa: N802 (the names are Kaggle's)
        slug = call.body.get("competitionName", "")
        if slug not in self.competitions:
            raise Refusal(404, "Competition not found")
        return self._describe(slug)

    def ListCompetitions(self, call: Call) -> dict:  # noqa: N802
        return {"competitions": [self._describe(slug) for slug in self.competitions], "nextPageToken": ""}

    def ListDataFiles(self, call: Call) -> dict:  # noqa: N802
        files = sorted(self._open(call).files.items())
        start = int(call.body.get("pageToken") or 0)
        end = start + self.page_size
        rows = [{"ref": name, "name": name, "totalBytes": len(content)} for name, content in files[start:end]]
        return {"files": rows, "nextPageToken": str(end) if end < len(files) else ""}

    def DownloadDataFiles(self, call: Call) -> str:  # noqa: N802
        self._open(call)
        return f"{call.base}/files/{call.body['competitionName']}.zip"

    def StartSubmissionUpload(self, call: Call) -> dict:  # noqa: N802
        self._open(call)
        token = f"tok-{len(self.uploads) + 1}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"{call.base}/upload/{token}"}

    def CreateSubmission(self, call: Call) -> dict:  # noqa: N802
        slug = call.body["competitionName"]
        competition = self._open(call)
        if competition.is_code:
            raise Refusal(400, "This competition only accepts submissions from notebooks")
        self._spend(competition)
        content = self.uploads[call.body["blobFileTokens"]]
        ref = self._enter(call, len(content))
        self._grade(ref, competition, content)
        return {"message": f"Successfully submitted to {slug}", "ref": ref}

    def CreateCodeSubmission(self, call: Call) -> dict:  # noqa: N802
        body, competition = call.body, self._open(call)
        if not competition.takes_kernels_by_api:
            raise Refusal(403, "Permission 'competitions.submit' was denied")
        if not competition.is_code:
            raise Refusal(400, "This competition does not accept submissions from notebooks")
        kernel = f"{body['kernelOwner']}/{body['kernelSlug']}"
        session = self.desk.kernels.finished(kernel, body["kernelVersion"])
        self._spend(competition)
        ref = self._enter(call, 0)
        self.desk.kernels._start(self._rerun, ref, session, body["competitionName"], body["fileName"])
        return {"message": "Successfully submitted", "ref": ref}

    def GetSubmission(self, call: Call) -> dict:  # noqa: N802
        self.num_polls += 1
        if self.num_polls <= self.num_unknown_polls or call.body["ref"] not in self.submissions:
            raise Refusal(404, "Submission not found")
        submission = self.submissions[call.body["ref"]]
        if self.num_polls <= self.num_unknown_polls + self.num_pending_polls:
            return submission | {"status": "PENDING", "publicScore": ""}
        return submission

    def ListSubmissions(self, call: Call) -> dict:  # noqa: N802
        return {"submissions": list(self.submissions.values())[::-1], "nextPageToken": ""}

    def GetSubmissionLimits(self, call: Call) -> dict:  # noqa: N802
        slug = call.body["competitionName"]
        if slug not in self.competitions:
            raise Refusal(404, "Competition not found")
        competition = self.competitions[slug]
        if not competition.rules_accepted:
            return {}
        left = max(competition.max_daily - competition.num_today, 0)
        return {"numToday": competition.num_today, "numTotal": competition.num_total, "numAllowedNow": left}

    def archive(self, slug: str) -> bytes:
        """All files of a competition as Kaggle zips them; a big one lies zipped in it once more."""
        competition = self.competitions[slug]
        if competition.archive is not None:
            return competition.archive
        members = {}
        for name, content in competition.files.items():
            if name in competition.nested_zips:
                members[f"{name}.zip"] = zipped({name.rsplit("/")[-1]: content})
            else:
                members[name] = content
        return zipped(members)

    def _describe(self, slug: str) -> dict:
        competition = self.competitions[slug]
        return {
            "id": 1,
            "ref": f"https://www.kaggle.com/competitions/{slug}",
            "title": slug,
            "userHasEntered": competition.rules_accepted,
            "maxDailySubmissions": competition.max_daily,
            "isKernelsSubmissionsOnly": competition.is_code,
        }

    def _open(self, call: Call) -> StandInCompetition:
        slug = call.body.get("competitionName", "")
        if slug not in self.competitions:
            raise Refusal(404, "Competition not found")
        if not self.competitions[slug].rules_accepted:
            raise Refusal(403, "You must accept this competition's rules before you'll be able to download files.")
        return self.competitions[slug]

    def _spend(self, competition: StandInCompetition) -> None:
        if competition.num_today >= competition.max_daily:
            used = competition.max_daily
            raise Refusal(400, f"Your team has used its daily Submission allowance ({used}) today")
        competition.num_today += 1
        competition.num_total += 1

    def _enter(self, call: Call, num_bytes: int) -> int:
        ref = 5000 + len(self.submissions)
        self.graded[ref] = threading.Event()
        self.submissions[ref] = {
            "ref": ref,
            "date": "2026-11-22T06:30:00.123Z",
            "description": call.body.get("submissionDescription", ""),
            "fileName": "submission.csv",
            "publicScore": "",
            "privateScore": "",
            "status": "PENDING",
            "errorDescription": None,
            "totalBytes": num_bytes,
        }
        return ref

    def _rerun(self, ref: int, session: Any, slug: str, file_name: str) -> None:
        output = self.desk.rerun_output(ref)
        report = self.desk.kernels.rerun(session, slug, output)
        if report.stopped_for == "timeout":
            self._fail(ref, "Notebook Timeout")
        elif report.stopped_for == "memory":
            self._fail(ref, "Notebook Exceeded Allowed Compute")
        elif not report.ok:
            self._fail(ref, "Notebook Threw Exception")
        elif not (output / file_name).is_file():
            self._fail(ref, "Submission CSV Not Found")
        else:
            self._grade(ref, self.competitions[slug], (output / file_name).read_bytes())

    def _grade(self, ref: int, competition: StandInCompetition, content: bytes) -> None:
        scores = (competition.public_score, competition.private_score)
        try:
            if competition.error:
                raise Ungradable(competition.error)
            if competition.answers is not None:
                scores = (grade(competition.answers, content)[0], "")
        except Ungradable as error:
            self._fail(ref, str(error))
            return
        self.submissions[ref] |= {"publicScore": scores[0], "privateScore": scores[1], "status": "COMPLETE"}
        self.graded[ref].set()

    def _fail(self, ref: int, error: str) -> None:
        self.submissions[ref] |= {"status": "ERROR", "errorDescription": error}
        self.graded[ref].set()


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip file in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
