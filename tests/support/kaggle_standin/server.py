"""The stand-in's front: an HTTP server on loopback with Kaggle's paths, JSON shapes, redirects and error bodies."""

import base64
import itertools
import json
import tempfile
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kaggle_standin.competitions import CompetitionDesk, StandInCompetition
from kaggle_standin.datasets import DatasetDesk
from kaggle_standin.kernels import KernelDesk
from kaggle_standin.protocol import Call, Cut, Extra, Refusal, Reply, Spoil, Stop


class KaggleStandIn:
    """`with KaggleStandIn() as server:` serves on `server.url` until the block ends.

    `faults` maps a method's name (or "upload", "download") to what the next calls of it meet, one each. Every request
    is kept in `requests`, and as a JSON line in `log` where that is a path; no line holds credentials.
    """

    def __init__(self, competitions: dict[str, StandInCompetition] | None = None, *, log: Path | None = None):
        self._folder = tempfile.TemporaryDirectory(prefix="kaggle-standin-")
        folder = Path(self._folder.name)
        self.datasets = DatasetDesk()
        self.kernels = KernelDesk(folder / "kernels")
        self.contests = CompetitionDesk(folder, competitions if competitions is not None else {})
        self.kernels.desk = self.contests.desk = self
        self.valid_tokens: dict[str, str] = {}
        self.keys = {"alice": "secret-key"}
        self.requests: list[tuple[str, dict]] = []
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.log = log
        self._lock = threading.RLock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        for versions in self.kernels.sessions.values():
            for session in versions:
                session.end("CANCEL_ACKNOWLEDGED")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for thread in self.kernels.threads:
            thread.join(300)
        self._folder.cleanup()

    @property
    def competitions(self) -> dict[str, StandInCompetition]:
        return self.contests.competitions

    @property
    def submissions(self) -> dict[int, dict]:
        return self.contests.submissions

    @property
    def uploads(self) -> dict[str, bytes]:
        return self.contests.uploads

    def called(self, method: str) -> list[dict]:
        """The bodies of all requests to one method, in order."""
        return [body for name, body in self.requests if name == method]

    def rerun_output(self, ref: int) -> Path:
        """What a kernel left when it ran over the hidden rows for a submission."""
        return self.contests.folder / ".submissions" / str(ref)

    def is_offline(self, slug: str) -> bool:
        return slug in self.competitions and self.competitions[slug].is_offline

    def is_joined(self, slug: str) -> bool:
        return slug in self.competitions and self.competitions[slug].rules_accepted

    def public_files(self, slug: str) -> dict[str, bytes]:
        return self.competitions[slug].files

    def hidden_files(self, slug: str) -> dict[str, bytes]:
        return self.competitions[slug].files | self.competitions[slug].hidden

    def answer(self, call: Call) -> dict | str | Cut:
        """The JSON answer of a method; a string is the address a download is redirected to."""
        with self._lock:
            self._record(call)
            fault = self.faults[call.method].pop(0) if self.faults[call.method] else None
            if isinstance(fault, Refusal):
                raise fault
            if isinstance(fault, Reply):
                return fault.body
            if isinstance(fault, Cut) and not fault.is_done:
                return fault
            for desk in (self, self.contests, self.kernels, self.datasets):
                handler = getattr(desk, call.method, None)
                if handler is not None:
                    answer = handler(call)
                    if isinstance(fault, Extra):
                        return answer | fault.body
                    return fault or answer
            raise Refusal(404, f"no such method {call.method}")

    def IntrospectToken(self, call: Call) -> dict:  # noqa: N802 (the name is Kaggle's)
        username = self.valid_tokens.get(call.body["token"])
        return {"active": True, "username": username, "userId": 7} if username else {"active": False}

    def user_of(self, authorization: str) -> str:
        """Who signs with this header; "" for nobody."""
        kind, _, value = authorization.partition(" ")
        if kind == "Bearer":
            return self.valid_tokens.get(value, "")
        name, _, key = base64.b64decode(value).decode().partition(":") if kind == "Basic" else ("", "", "")
        return name if name and self.keys.get(name) == key else ""

    def _record(self, call: Call) -> None:
        body = call.body | {"token": "…"} if "token" in call.body else call.body
        self.requests.append((call.method, body))
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"method": call.method, "user": call.user, "body": body}) + "\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: KaggleStandIn

    @property
    def place(self) -> str:
        """The client behind a proxy sends the whole address as the path."""
        return urlsplit(self.path).path

    def do_POST(self):
        body = json.loads(self._body() or b"{}")
        method = self.place.rsplit("/", 1)[-1]
        user = self.stand_in.user_of(self.headers.get("Authorization", ""))
        try:
            if not user and method != "IntrospectToken":
                raise Refusal(401, "Unauthenticated")
            answer = self.stand_in.answer(Call(method, body, user, f"http://{self.headers['Host']}"))
        except Refusal as refusal:
            content = {"code": refusal.status, "message": str(refusal)}
            self._send(json.dumps(content).encode(), refusal.http_status, {**_JSON, **refusal.headers})
            return
        if isinstance(answer, Cut):
            time.sleep(answer.seconds)
            self.close_connection = True
        elif isinstance(answer, str):
            self._send(b"", 302, {"Location": answer})
        else:
            self._send(json.dumps(answer).encode(), 200, _JSON)

    def do_PUT(self):
        token = self.place.rsplit("/", 1)[-1]
        if token in self.stand_in.uploads:
            self.stand_in.uploads[token] = self._body()
            self._send(b"", self.stand_in.contests.upload_status, {})
            return
        blob = self.stand_in.datasets.blobs.get(token)
        self.stand_in.requests.append(("upload", {"token": token, "range": self.headers.get("Content-Range", "")}))
        if blob is None:
            self._body()
            self._send(b"", 404, {})
            return
        self._take(blob)

    def do_GET(self):
        match self.place.strip("/").split("/"):
            case ["files", name]:
                content = self.stand_in.contests.archive(name.removesuffix(".zip"))
                self._send(content, 200, {"Content-Type": "application/zip", "ETag": '"1"'})
            case ["output", *path]:
                self._send_output(unquote("/".join(path)))
            case ["api", "v1", "kernels", "logs", "stream", owner, slug]:
                self._send_log(owner, slug)
            case _:
                self._send(b"", 404, {})

    def log_message(self, *_):
        """Tests read `requests`, not a log on stderr."""

    def _take(self, blob: Any) -> None:
        """A whole file, a question how much has arrived, or the rest of a file."""
        unit, *_ = self.headers.get("Content-Range", "").removeprefix("bytes ").split("/")
        if unit == "*":
            self._body()
        else:
            start = int(unit.split("-")[0]) if unit else 0
            assert start <= len(blob.received)
            faults = self.stand_in.faults["upload"]
            stop = faults.pop(0) if faults else None
            if isinstance(stop, Stop):
                blob.received = blob.received[:start] + self.rfile.read(stop.num_bytes)
                self.close_connection = True
                if stop.status:
                    self.rfile.read(int(self.headers["Content-Length"]) - stop.num_bytes)
                    self._send(b"", stop.status, {"Connection": "close"})
                return
            blob.received = blob.received[:start] + self._body()
        if blob.is_whole:
            self._send(b"", 200, {})
        else:
            received = {"Range": f"bytes=0-{len(blob.received) - 1}"} if blob.received else {}
            self._send(b"", 308, received)

    def _send_output(self, path: str) -> None:
        content, headers = self.stand_in.kernels.output_file(path)
        faults = self.stand_in.faults["download"]
        fault = faults.pop(0) if faults else None
        if isinstance(fault, Spoil) and fault.how == "altered":
            content = bytes([content[0] ^ 1]) + content[1:]
        if isinstance(fault, Spoil) and fault.how == "short":
            self.close_connection = True
            self._send(content[: len(content) // 2], 200, headers, num_bytes=len(content))
            return
        self._send(content, 200, headers)

    def _send_log(self, owner: str, slug: str) -> None:
        label = parse_qs(urlsplit(self.path).query).get("versionLabel", [""])[0]
        try:
            if not self.stand_in.user_of(self.headers.get("Authorization", "")):
                raise Refusal(401, "Unauthenticated")
            if self.stand_in.faults["stream"]:
                raise self.stand_in.faults["stream"].pop(0)
            session = self.stand_in.kernels.log_events(owner, slug, label)
        except Refusal as refusal:
            self._send(json.dumps({"code": refusal.status, "message": str(refusal)}).encode(), refusal.status, _JSON)
            return
        if session.is_over.is_set():
            self._send(json.dumps(session.log).encode(), 200, _JSON)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        for event in itertools.chain(self.stand_in.kernels.stream(session), [""]):
            faults = self.stand_in.faults["log"]
            if faults and faults.pop(0):
                return
            self.wfile.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
            self.wfile.flush()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, content: bytes, status: int, headers: dict[str, str], *, num_bytes: int | None = None):
        self.send_response(status)
        length = len(content) if num_bytes is None else num_bytes
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


_JSON = {"Content-Type": "application/json"}
