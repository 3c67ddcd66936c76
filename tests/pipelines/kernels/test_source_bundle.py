"""The source in a notebook: always the same bytes, and no other than what is imported here."""

import hashlib
import io
import lzma
import zipfile

from pipelines.kernels.source_bundle import collect_source, compress, digest, pack, project_root
from pipelines.runs.source.state import hash_source


def test_the_same_files_make_the_same_zip_whatever_their_order():
    files = {"b.py": b"2", "a/c.py": b"1"}
    packed = pack(files)
    assert pack(dict(reversed(files.items()))) == packed
    # A digest that stays the same on every machine: nothing in it depends on time, user or compressor.
    assert digest(packed) == "5398ceedf86294b051c0f0b21e870aabd32f6027d8a250154c3be9d4a15145ef"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["a/c.py", "b.py"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert lzma.decompress(compress(packed)) == packed


def test_kaggles_folder_is_named_in_the_notebook_alone():
    """And where it is imitated, and as the default of a component's argument."""
    named = {name for name, content in collect_source().items() if b'"/kaggle' in content}
    assert named == {
        "components/models/shared/pretrained.py",
        "pipelines/kernels/notebook.py",
        "pipelines/kernels/rehearsal/walls.py",
    }


def test_what_travels_is_every_module_of_both_packages():
    files = collect_source()
    assert {name.split("/")[0] for name in files} == {"components", "pipelines"}
    on_disk = [path for package in ("components", "pipelines") for path in (project_root() / package).rglob("*.py")]
    assert len(files) == len(on_disk) > 100
    expected = hashlib.sha256()
    for package in ("components", "pipelines"):
        for name in sorted(n for n in files if n.startswith(f"{package}/")):
            expected.update(name.encode() + b"\0" + files[name] + b"\0")
    assert expected.hexdigest() == hash_source()
