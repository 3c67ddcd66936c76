"""Finding and opening what the page serves: indexes under data/search/, encoders here or behind a service."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.files.digests import file_digest
from components.search.encoders import SentenceEncoder
from components.search.index import RECORD_FILE, IndexRecord, SearchIndex, open_index
from pipelines.errors import PodiumError
from pipelines.search.encoders import open_sentence_encoder
from pipelines.search.page.health import HEALTH
from pipelines.search.remote import RemoteEncoder
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Served:
    """An index that is there to be opened; `content` changes whenever anything in it does."""

    corpus: str
    folder: Path
    content: str


def list_served(workspace: Workspace) -> list[Served]:
    """Every folder under data/search/ that has ever been an index, by name."""
    folders = sorted(path.parent for path in (workspace.data / "search").glob(f"*/{RECORD_FILE}"))
    return [Served(folder.name, folder, content_of(folder)) for folder in folders]


def content_of(folder: Path) -> str:
    """A hash of the index's record, which holds the digests of all its files."""
    try:
        return file_digest(folder / RECORD_FILE)
    except OSError:
        return "missing"


def load_encoder(root: Path, record: IndexRecord, urls: Sequence[str]) -> SentenceEncoder:
    """The encoder that an index was made with: a service's where one of `urls` has it, else in this process."""
    services = [RemoteEncoder(url) for url in urls]
    for service in services:
        if service.fingerprint == record.encoder_fingerprint:
            return service
    if services:
        offered = ", ".join(f"{service.name} on {service.url}" for service in services)
        raise PodiumError(f"index {record.corpus}: needs the encoder {record.encoder}, but there is {offered}")
    HEALTH.count_load("encoder")
    encoder = open_sentence_encoder(Workspace(root), record.encoder, fingerprint=record.encoder_fingerprint)
    # Some encoders read their weights when they are first used; no visitor shall wait for that.
    encoder.encode([record.corpus])
    return encoder


def load_index(folder: Path, encoder: SentenceEncoder) -> SearchIndex:
    """The index, held against its digests and its encoder."""
    HEALTH.count_load("index")
    return open_index(folder, encoder=encoder)
