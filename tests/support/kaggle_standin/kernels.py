"""Kernels: versions, sessions that really run what was pushed, their logs and outputs."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kaggle_standin.protocol import Call, Refusal
from pipelines.kernels.rehearsal.sandbox import run_kernel

MAX_SOURCE = 1_000_000
SESSIONS = {"GPU": 2, "TPU": 1, "CPU": 5}
ENDED = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
SOURCE_KEYS = ("datasetDataSources", "kernelDataSources", "competitionDataSources", "modelDataSources")


@dataclass
class Script:
    """A session that is told instead of run: it says `lines`, waits for `gate`, leaves `files` and ends."""

    lines: tuple[str, ...] = ()
    status: str = "COMPLETE"
    message: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    gate: threading.Event | None = None


@dataclass
class Session:
    """One version of a kernel and its run."""

    kernel: str
    number: int
    body: dict
    output: Path
    status: str = "RUNNING"
    message: str = ""
    log: list[dict] = field(default_factory=list)
    num_polls: int = 0
    sources: dict[str, list[str]] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def accelerator(self) -> str:
        shape = self.body.get("machineShape", "")
        if self.body.get("enableTpu") or shape.startswith("Tpu"):
            return "TPU"
        return "GPU" if self.body.get("enableGpu") or shape.startswith("Nvidia") else "CPU"

    def end(self, status: str, message: str = "") -> None:
        """A cancelled run stays cancelled, whatever its process still says."""
        if not self.is_over.is_set():
            self.status, self.message = status, message
            self.is_over.set()


@dataclass
class KernelDesk:
    """Answers kernels.KernelsApiService. `scripts` maps kernels to what happens instead of running them.

    `models` maps versions of Kaggle Models (owner/model/framework/variation/version) to their files.

    A version is unknown (404) to the first `num_unknown_polls` polls of its status and QUEUED for the next
    `num_queued_polls`.
    """

    folder: Path
    desk: Any = None
    scripts: dict[str, Script] = field(default_factory=dict)
    sessions: dict[str, list[Session]] = field(default_factory=dict)
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    num_queued_polls: int = 0
    num_unknown_polls: int = 0
    max_seconds: float = 120.0
    max_bytes: int = 8 << 30
    layout: str = "new"
    environment: dict[str, str] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    def SaveKernel(self, call: Call) -> dict:  # noqa: N802 (the names are Kaggle's)
        body, kernel = call.body, call.body.get("slug", "")
        self._refuse_what_kaggle_refuses(call)
        versions = self.sessions.setdefault(kernel, [])
        if versions and versions[0].body["kernelType"] != body["kernelType"]:
            return {"error": "Cannot change the kernel type of an existing kernel"}
        for former in versions:
            former.end("CANCEL_ACKNOWLEDGED")
        session = Session(kernel, len(versions) + 1, body, self.folder / kernel / f"v{len(versions) + 1}")
        if error := self._busy(session):
            if not versions:
                del self.sessions[kernel]
            return {"error": error}
        known = {key: [name for name in body.get(key, []) if self._exists(key, name)] for key in SOURCE_KEYS}
        session.sources = known
        versions.append(session)
        session.output.mkdir(parents=True)
        if body.get("kernelExecutionType") == "QUICK_SAVE":
            session.end("COMPLETE")
        else:
            self._start(self._run, session)
        invalid = {f"invalid{key[0].upper()}{key[1:].replace('Data', '')}": [] for key in SOURCE_KEYS}
        url = f"https://www.kaggle.com/code/{kernel}"
        answer = {"ref": f"/code/{kernel}", "url": url, "versionNumber": session.number, "kernelId": 101}
        return answer | invalid | self._invalid_sources(body) | {"invalidTags": []}

    def GetKernelSessionStatus(self, call: Call) -> dict:  # noqa: N802
        session = self._session(call)
        session.num_polls += 1
        if session.num_polls <= self.num_unknown_polls:
            raise Refusal(404, "Version not found")
        if session.num_polls <= self.num_unknown_polls + self.num_queued_polls:
            return {"status": "QUEUED"}
        return {"status": session.status, "failureMessage": session.message}

    def ListKernelSessionOutput(self, call: Call) -> dict:  # noqa: N802
        session = self._session(call)
        if not session.is_over.is_set():
            return {"files": [], "log": "", "nextPageToken": ""}
        names = sorted(str(p.relative_to(session.output)) for p in session.output.rglob("*") if p.is_file())
        start = int(call.body.get("pageToken") or 0)
        end = start + int(call.body.get("pageSize") or 20)
        address = f"{call.base}/output/{session.kernel}/v{session.number}"
        files = [{"url": f"{address}/{quote(name)}?sig=signed", "fileName": name} for name in names[start:end]]
        return {
            "files": files,
            "log": json.dumps(session.log) if session.log else "",
            "nextPageToken": str(end) if end < len(names) else "",
        }

    def GetKernel(self, call: Call) -> dict:  # noqa: N802
        session = self._session(call)
        owner, slug = session.kernel.split("/")
        body = session.body
        metadata = {
            "id": 101,
            "ref": session.kernel,
            "title": body.get("newTitle", ""),
            "author": owner,
            "slug": slug,
            "language": body["language"],
            "kernelType": body["kernelType"],
            "isPrivate": body.get("isPrivate", True),
            "enableGpu": body.get("enableGpu", False),
            "enableInternet": body.get("enableInternet", True),
            "currentVersionNumber": session.number,
        }
        blob = {"source": body["text"], "language": body["language"], "kernelType": body["kernelType"], "slug": slug}
        return {"metadata": metadata | session.sources, "blob": blob}

    def GetAcceleratorQuotaStatistics(self, call: Call) -> dict:  # noqa: N802
        week = datetime(2026, 11, 28, tzinfo=UTC)
        return {
            "quotaRefreshTime": week.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "gpuQuota": {"timeUsed": "3600s", "totalTimeAllowed": f"{timedelta(hours=30).total_seconds():.0f}s"},
            "tpuQuota": {"timeUsed": "0s", "totalTimeAllowed": "72000s"},
        }

    def GetModelInstance(self, call: Call) -> dict:  # noqa: N802
        body = call.body
        framework = body["framework"].removeprefix("MODEL_FRAMEWORK_").replace("_", "").lower()
        wanted = (body["ownerSlug"], body["modelSlug"], framework, body["instanceSlug"])
        versions = [
            int(version)
            for owner, model, kind, variation, version in (name.split("/") for name in self.models)
            if (owner, model, kind.lower(), variation) == wanted
        ]
        if not versions:
            raise Refusal(404, "Model not found")
        return {"id": 9, "slug": wanted[3], "framework": body["framework"], "versionNumber": max(versions)}

    def log_events(self, owner: str, slug: str, label: str) -> Session:
        """The session whose log a GET of the stream asks for."""
        return self._find(f"{owner}/{slug}", label)

    def stream(self, session: Session) -> Iterator[str]:
        """Server-sent events of a session, as they come."""
        sent = 0
        while True:
            over = session.is_over.is_set()
            for event in session.log[sent:]:
                yield f"data: {json.dumps(event)}\n\n"
            sent = len(session.log)
            if over:
                yield "data: END_OF_LOG\n\n"
                return
            time.sleep(0.01)

    def output_file(self, path: str) -> tuple[bytes, dict[str, str]]:
        """The bytes behind a signed address, and the headers that Google's storage sends with them."""
        owner, slug, version, *name = path.split("/")
        content = (self.folder / owner / slug / version / "/".join(name)).read_bytes()
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        return content, {"ETag": '"1"', "Accept-Ranges": "bytes", "x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"}

    def rerun(self, session: Session, competition: str, output: Path) -> Any:
        """Run a version once more, as Kaggle does over the hidden test set of a code competition."""
        hidden = {"KAGGLE_IS_COMPETITION_RERUN": "1"}
        return self._execute(session, output, hidden, {competition: self.desk.hidden_files(competition)})

    def finished(self, kernel: str, number: int) -> Session:
        """A version that can be submitted."""
        session = self._find(kernel, f"v{number}")
        if session.status != "COMPLETE":
            raise Refusal(400, "The kernel version must have completed successfully to be submitted")
        return session

    def _refuse_what_kaggle_refuses(self, call: Call) -> None:
        body = call.body
        if body["slug"].split("/")[0] != call.user:
            raise Refusal(403, "Permission 'kernels.update' was denied")
        if len(body["text"].encode()) >= MAX_SOURCE:
            raise Refusal(400, "The kernel source must be less than 1 megabytes in size")
        if len(body.get("newTitle", "")) > 50:
            raise Refusal(500, "An error occurred")
        offline = [name for name in body.get("competitionDataSources", []) if self.desk.is_offline(name)]
        if offline and body.get("enableInternet"):
            raise Refusal(400, f"Internet must be disabled for the competition {offline[0]}")

    def _busy(self, session: Session) -> str:
        kind = session.accelerator
        running = [s for versions in self.sessions.values() for s in versions if not s.is_over.is_set()]
        if sum(s.accelerator == kind for s in running) >= SESSIONS[kind]:
            return f"Maximum batch {kind} session count of {SESSIONS[kind]} reached."
        return ""

    def _invalid_sources(self, body: dict) -> dict:
        invalid = {}
        for key in SOURCE_KEYS:
            names = [name for name in body.get(key, []) if not self._exists(key, name)]
            if names:
                invalid[f"invalid{key[0].upper()}{key[1:].replace('Data', '')}"] = names
        return invalid

    def _exists(self, key: str, name: str) -> bool:
        match key:
            case "datasetDataSources":
                return name in self.desk.datasets.datasets
            case "competitionDataSources":
                return self.desk.is_joined(name)
            case "kernelDataSources":
                return name in self.sessions
        return name in self.models

    def _find(self, kernel: str, label: str) -> Session:
        if kernel not in self.sessions:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        if not label:
            return self.sessions[kernel][-1]
        numbers = {f"v{session.number}": session for session in self.sessions[kernel]}
        if label not in numbers:
            raise Refusal(404, f"No version {label}")
        return numbers[label]

    def _session(self, call: Call) -> Session:
        return self._find(f"{call.body['userName']}/{call.body['kernelSlug']}", call.body.get("versionLabel", ""))

    def _start(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, session: Session) -> None:
        script = self.scripts.get(session.kernel)
        if script is not None:
            self._tell(session, script)
            return
        if session.body["kernelType"] == "notebook":
            notebook = json.loads(session.body["text"])
            if not notebook.get("metadata", {}).get("kernelspec", {}).get("name"):
                session.end("ERROR", "No kernel name found in notebook and no override provided.")
                return
        report = self._execute(session, session.output, {}, {})
        session.log[:] = json.loads(report.log)
        if report.ok:
            session.end("COMPLETE")
        elif report.stopped_for == "memory":
            session.end("ERROR", "Your notebook tried to allocate more memory than is available. It has restarted.")
        elif report.stopped_for == "timeout":
            session.end("ERROR", "Your notebook was stopped because it exceeded its time limit.")
        else:
            session.end("ERROR", "")

    def _tell(self, session: Session, script: Script) -> None:
        for number, line in enumerate(script.lines):
            session.log.append({"stream_name": "stdout", "time": float(number), "data": f"{line}\n"})
        if script.gate is not None:
            script.gate.wait(30)
        for name, content in script.files.items():
            (session.output / name).parent.mkdir(parents=True, exist_ok=True)
            (session.output / name).write_bytes(content)
        session.end(script.status, script.message)

    def _execute(self, session: Session, output: Path, environment: dict, replaced: dict) -> Any:
        place = self.folder / ".runs" / f"{session.kernel.replace('/', '--')}-v{session.number}-{len(self.threads)}"
        code = f"code.{'ipynb' if session.body['kernelType'] == 'notebook' else 'py'}"
        place.mkdir(parents=True)
        (place / "kernel-metadata.json").write_text(json.dumps({"code_file": code}), encoding="utf-8")
        (place / code).write_text(session.body["text"], encoding="utf-8")
        wanted = float(session.body.get("sessionTimeoutSeconds") or self.max_seconds)
        return run_kernel(
            place,
            self._mounts(session.body, place / "input", replaced),
            output,
            layout=self.layout,
            environment={"KAGGLE_KERNEL_RUN_TYPE": "Batch", **self.environment, **environment},
            timeout_s=min(wanted, self.max_seconds),
            memory_bytes=self.max_bytes,
        )

    def _mounts(self, body: dict, folder: Path, replaced: dict) -> dict[str, Path]:
        mounts = {}
        for name in body.get("datasetDataSources", []):
            if self._exists("datasetDataSources", name):
                mounts[f"datasets/{name}"] = self.desk.datasets.mount(name, folder / "datasets" / name)
        for name in body.get("competitionDataSources", []):
            if self._exists("competitionDataSources", name):
                files = replaced.get(name) or self.desk.public_files(name)
                mounts[f"competitions/{name}"] = _write_files(files, folder / "competitions" / name)
        for name in body.get("kernelDataSources", []):
            if self._exists("kernelDataSources", name):
                done = [session for session in self.sessions[name] if session.status == "COMPLETE"]
                mounts[f"notebooks/{name}"] = done[-1].output
        for name in body.get("modelDataSources", []):
            if self._exists("modelDataSources", name):
                mounts[f"models/{name.lower()}"] = _write_files(self.models[name], folder / "models" / name)
        return mounts


def _write_files(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
