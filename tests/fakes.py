"""Stand-ins for the world that speak its real protocol, so that the unmodified clients can be tested without a network.

`KaggleStandIn` is an HTTP server on loopback that answers what the official client sends for competitions: the same
paths, JSON shapes, redirects and error bodies.
"""

import base64
import io
import json
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Refusal(Exception):
    """An error as Kaggle words it: an HTTP status and a message in a JSON body."""

    def __init__(self, status: int, message: str, http_status: int | None = None):
        super().__init__(message)
        self.status = status
        self.http_status = http_status or status


@dataclass
class StandInCompetition:
    """A competition's files, rules and the user's submissions to it."""

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


@dataclass
class KaggleStandIn:
    """`with KaggleStandIn() as server:` serves on `server.url` until the block ends."""

    competitions: dict[str, StandInCompetition] = field(default_factory=dict)
    valid_tokens: dict[str, str] = field(default_factory=dict)
    num_unknown_polls: int = 0
    num_pending_polls: int = 0
    page_size: int = 2
    requests: list[tuple[str, dict]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    submissions: dict[int, dict] = field(default_factory=dict)
    faults: dict[str, list[Refusal]] = field(default_factory=lambda: defaultdict(list))
    upload_status: int = 200

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def called(self, method: str) -> list[dict]:
        """The bodies of all requests to one method, in order."""
        return [body for name, body in self.requests if name == method]

    def answer(self, method: str, body: dict) -> dict | str:
        """The JSON answer of a method; a string is the address a download is redirected to."""
        self.requests.append((method, body))
        if self.faults[method]:
            raise self.faults[method].pop(0)
        answers = {
            "IntrospectToken": self._introspect_token,
            "ListDataFiles": self._list_data_files,
            "DownloadDataFiles": lambda body: (
                f"{self.url}/files/{self._competition(body) and body['competitionName']}.zip"
            ),
            "StartSubmissionUpload": self._start_upload,
            "CreateSubmission": self._create_submission,
            "GetSubmission": self._get_submission,
            "ListSubmissions": lambda body: {"submissions": list(self.submissions.values())[::-1], "nextPageToken": ""},
            "GetSubmissionLimits": self._submission_limits,
        }
        if method not in answers:
            raise Refusal(404, f"no such method {method}")
        return answers[method](body)

    def archive(self, slug: str) -> bytes:
        """All files of a competition as Kaggle zips them; a big one lies zipped in it once more."""
        competition = self.competitions[slug]
        if competition.archive is not None:
            return competition.archive
        members = {}
        for name, content in competition.files.items():
            if name in competition.nested_zips:
                members[f"{name}.zip"] = _zipped({name.rsplit("/")[-1]: content})
            else:
                members[name] = content
        return _zipped(members)

    def _competition(self, body: dict) -> StandInCompetition:
        slug = body.get("competitionName", "")
        if slug not in self.competitions:
            raise Refusal(404, "Competition not found")
        if not self.competitions[slug].rules_accepted:
            raise Refusal(403, "You must accept this competition's rules before you'll be able to download files.")
        return self.competitions[slug]

    def _introspect_token(self, body: dict) -> dict:
        username = self.valid_tokens.get(body["token"])
        return {"active": True, "username": username, "userId": 7} if username else {"active": False}

    def _list_data_files(self, body: dict) -> dict:
        files = sorted(self._competition(body).files.items())
        start = int(body.get("pageToken") or 0)
        end = start + self.page_size
        rows = [{"ref": name, "name": name, "totalBytes": len(content)} for name, content in files[start:end]]
        return {"files": rows, "nextPageToken": str(end) if end < len(files) else ""}

    def _start_upload(self, body: dict) -> dict:
        self._competition(body)
        token = f"tok-{len(self.called('StartSubmissionUpload'))}"
        return {"token": token, "createUrl": f"{self.url}/upload/{token}"}

    def _create_submission(self, body: dict) -> dict:
        competition = self._competition(body)
        ref = 5000 + len(self.submissions)
        self.submissions[ref] = {
            "ref": ref,
            "date": "2026-11-22T06:30:00.123Z",
            "description": body.get("submissionDescription", ""),
            "fileName": "submission.csv",
            "publicScore": "" if competition.error else competition.public_score,
            "privateScore": competition.private_score,
            "status": "ERROR" if competition.error else "COMPLETE",
            "errorDescription": competition.error or None,
            "totalBytes": len(self.uploads[body["blobFileTokens"]]),
        }
        competition.num_today += 1
        competition.num_total += 1
        return {"message": f"Successfully submitted to {body['competitionName']}", "ref": ref}

    def _get_submission(self, body: dict) -> dict:
        num_polls = len(self.called("GetSubmission"))
        if num_polls <= self.num_unknown_polls or body["ref"] not in self.submissions:
            raise Refusal(404, "Submission not found")
        submission = self.submissions[body["ref"]]
        if num_polls <= self.num_unknown_polls + self.num_pending_polls:
            return submission | {"status": "PENDING", "publicScore": ""}
        return submission

    def _submission_limits(self, body: dict) -> dict:
        slug = body["competitionName"]
        if slug not in self.competitions:
            raise Refusal(404, "Competition not found")
        competition = self.competitions[slug]
        if not competition.rules_accepted:
            return {}
        left = max(competition.max_daily - competition.num_today, 0)
        return {"numToday": competition.num_today, "numTotal": competition.num_total, "numAllowedNow": left}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: KaggleStandIn

    def do_POST(self):
        body = json.loads(self._body() or b"{}")
        try:
            if not self._is_signed_in() and not self.path.endswith("IntrospectToken"):
                raise Refusal(401, "Unauthenticated")
            # The client behind a proxy sends the whole address as the path.
            answer = self.stand_in.answer(urlsplit(self.path).path.rsplit("/", 1)[-1], body)
        except Refusal as refusal:
            self._send_json({"code": refusal.status, "message": str(refusal)}, refusal.http_status)
            return
        if isinstance(answer, str):
            self._send(b"", 302, {"Location": answer})
        else:
            self._send_json(answer, 200)

    def do_PUT(self):
        self.stand_in.uploads[self.path.rsplit("/", 1)[-1]] = self._body()
        self._send(b"", self.stand_in.upload_status, {})

    def do_GET(self):
        slug = self.path.rsplit("/", 1)[-1].removesuffix(".zip")
        self._send(self.stand_in.archive(slug), 200, {"Content-Type": "application/zip", "ETag": '"1"'})

    def log_message(self, *_):
        """Tests read `requests`, not a log on stderr."""

    def _is_signed_in(self) -> bool:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer":
            return value in self.stand_in.valid_tokens
        return kind == "Basic" and base64.b64decode(value) == b"alice:secret-key"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send_json(self, content: dict, status: int):
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
