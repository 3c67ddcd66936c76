"""The project's source and a few small files as one text that fits into a notebook: always the same for the same files.

The zip stores its members uncompressed and is compressed as a whole: a third smaller, and its digest, which the kernel
checks, does not depend on the compressor.
"""

import base64
import hashlib
import io
import lzma
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import components
import pipelines

# Kaggle refuses a notebook of 1 MB. The client may write it a little longer than it is here, so that before that the
# source moves into a dataset.
MAX_SOURCE_BYTES, MARGIN_BYTES = 1_000_000, 50_000
MAX_EMBEDDED_BYTES = MAX_SOURCE_BYTES - MARGIN_BYTES
PACKED = "podium-source.bin"  # in a dataset; no archive's ending, for Kaggle would unpack it
EPOCH = (1980, 1, 1, 0, 0, 0)
PRESET = 2  # 4 saves a twelfth and takes three times as long, a third of a second


def collect_source() -> dict[str, bytes]:
    """Every module of components and pipelines under its path from the checkout's root."""
    files = {}
    for package in (components, pipelines):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        for path in folder.rglob("*.py"):
            files[f"{folder.name}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return files


def project_root() -> Path:
    """The folder that the running project was imported from."""
    assert pipelines.__file__ is not None
    return Path(pipelines.__file__).parent.parent


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files in the order of their names, without times, owners and compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def compress(content: bytes) -> bytes:
    """xz, as `lzma.decompress` reads it."""
    return lzma.compress(content, preset=PRESET)


def encode(content: bytes) -> str:
    """Compressed bytes as text for a notebook."""
    return base64.b64encode(content).decode("ascii")


def digest(content: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def unpack_notebook(notebook: bytes) -> dict[str, bytes]:
    """The files packed into a generated notebook; empty where the source is in a dataset."""
    found = re.search(rb'b64decode\(\\"([A-Za-z0-9+/=]+)\\"\)', notebook)
    return _unpack(base64.b64decode(found.group(1))) if found else {}


def unpack_packed(name: str, content: bytes) -> dict[str, bytes]:
    """The files of a code dataset's one file; empty for any other."""
    return _unpack(content) if name == PACKED else {}


def _unpack(compressed: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(lzma.decompress(compressed))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
