"""Blobs and datasets: uploads that can be resumed, versions that take their time, archives that are unpacked."""

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from kaggle_standin.protocol import Call, Refusal


@dataclass
class Blob:
    """A file on its way: what has arrived of the `length` bytes announced."""

    name: str
    length: int
    received: bytes = b""

    @property
    def is_whole(self) -> bool:
        return len(self.received) == self.length


@dataclass
class DatasetVersion:
    files: dict[str, bytes]
    notes: str
    age: int = 0


@dataclass
class Dataset:
    title: str
    description: str = ""
    versions: list[DatasetVersion] = field(default_factory=list)


@dataclass
class DatasetDesk:
    """Answers blobs.BlobApiService and datasets.DatasetApiService.

    A new version is not seen for `num_hidden_polls` polls of the status, then processed for `num_processing_polls`.
    `upload_faults` are taken by the next PUTs, one each; `failing` names datasets whose processing fails.
    """

    num_hidden_polls: int = 0
    num_processing_polls: int = 0
    failing: set[str] = field(default_factory=set)
    blobs: dict[str, Blob] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def StartBlobUpload(self, call: Call) -> dict:  # noqa: N802 (the names are Kaggle's)
        token = f"blob-{len(self.blobs) + 1}"
        self.blobs[token] = Blob(call.body["name"], int(call.body.get("contentLength", 0)))
        return {"token": token, "createUrl": f"{call.base}/upload/{token}"}

    def GetDatasetStatus(self, call: Call) -> dict:  # noqa: N802
        name = f"{call.body['ownerSlug']}/{call.body['datasetSlug']}"
        for version in self.datasets[name].versions if name in self.datasets else []:
            version.age += 1
        if not self._is_ready(self._seen(self._known(call))[-1]):
            return {"status": "BLOBS_RECEIVED"}
        return {"status": "FAILED" if name in self.failing else "READY"}

    def GetDataset(self, call: Call) -> dict:  # noqa: N802
        name = self._known(call)
        dataset = self.datasets[name]
        number = len(self._seen(name))
        versions = [{"versionNumber": n, "versionNotes": v.notes} for n, v in enumerate(dataset.versions[:number], 1)]
        return {
            "id": 1,
            "ref": name,
            "title": dataset.title,
            "description": dataset.description,
            "currentVersionNumber": number,
            "versions": versions,
        }

    def CreateDataset(self, call: Call) -> dict:  # noqa: N802
        name = f"{call.body['ownerSlug']}/{call.body['slug']}"
        if call.body["ownerSlug"] != call.user:
            raise Refusal(403, "Permission 'datasets.create' was denied")
        if name in self.datasets:
            raise Refusal(409, "The requested title is already in use by a dataset")
        self.datasets[name] = Dataset(call.body["title"], call.body.get("description", ""))
        return self._add(name, call.body, "Initial release")

    def CreateDatasetVersion(self, call: Call) -> dict:  # noqa: N802
        name = self._known(call)
        if call.body["ownerSlug"] != call.user:
            raise Refusal(403, "Permission 'datasets.update' was denied")
        body = call.body["body"]
        self.datasets[name].description = body.get("description") or self.datasets[name].description
        return self._add(name, body, body.get("versionNotes", ""))

    def add(self, name: str, files: dict[str, bytes]) -> None:
        """A dataset that stands there already, ready."""
        dataset = self.datasets.setdefault(name, Dataset(name))
        dataset.versions.append(DatasetVersion(dict(files), "", age=10**6))

    def mount(self, name: str, folder: Path) -> Path:
        """The newest ready version as a kernel sees it: archives have been unpacked into folders of their names."""
        ready = [version for version in self.datasets[name].versions if self._is_ready(version)]
        for file, content in ready[-1].files.items():
            if file.endswith(".zip"):
                zipfile.ZipFile(io.BytesIO(content)).extractall(folder / file.removesuffix(".zip"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(content)
        return folder

    def _add(self, name: str, body: dict, notes: str) -> dict:
        blobs = [self.blobs[file["token"]] for file in body.get("files", [])]
        if not all(blob.is_whole for blob in blobs):
            raise Refusal(400, "One or more files were not uploaded")
        self.datasets[name].versions.append(DatasetVersion({blob.name: blob.received for blob in blobs}, notes))
        return {"ref": f"/{name}", "url": f"https://www.kaggle.com/datasets/{name}", "status": "Ok", "error": ""}

    def _known(self, call: Call) -> str:
        name = f"{call.body['ownerSlug']}/{call.body['datasetSlug']}"
        if name not in self.datasets or not self._seen(name):
            raise Refusal(404, "Dataset not found")
        return name

    def _seen(self, name: str) -> list[DatasetVersion]:
        hidden = self.num_hidden_polls
        return [version for version in self.datasets[name].versions if not hidden or version.age > hidden]

    def _is_ready(self, version: DatasetVersion) -> bool:
        delay = self.num_hidden_polls + self.num_processing_polls
        return not delay or version.age > delay
