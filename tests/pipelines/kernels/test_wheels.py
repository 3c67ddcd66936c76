"""Wheels for a kernel: resolved beside the image's libraries, and locked."""

import pytest
from tiny_wheels import make_index, make_wheel

from pipelines.errors import PodiumError
from pipelines.kernels.wheels import obtain_wheels


@pytest.fixture
def index(tmp_path, monkeypatch):
    make_index(tmp_path / "index", monkeypatch)
    (tmp_path / "image.txt").write_text("# what the image has\ntinybase==1.0\n")
    return tmp_path


def obtain(index, *requirements):
    lock, cache, image = index / "wheels.lock", index / "cache", index / "image.txt"
    return [path.name for path in obtain_wheels(requirements, lock=lock, cache=cache, image=image)]


def test_only_what_the_image_lacks_travels(index):
    wheels = obtain(index, "tinytool==1.2")
    assert wheels == ["tinyextra-3.0-py3-none-any.whl", "tinytool-1.2-py3-none-any.whl"]
    assert (index / "wheels.lock").read_text().splitlines()[0] == "# wheels for Kaggle's image: tinytool==1.2"
    # What is asked for by name may be another version than the image's.
    assert obtain(index, "tinybase==2.0") == ["tinybase-2.0-py3-none-any.whl"]


def test_the_lock_decides_whatever_the_index_offers_later(index):
    before = obtain(index, "tinytool")
    lock = (index / "wheels.lock").read_text()
    make_wheel(index / "index", "tinytool", "1.3")
    assert obtain(index, "tinytool") == before
    for path in (index / "cache").iterdir():
        path.unlink()
    assert obtain(index, "tinytool") == before
    assert (index / "wheels.lock").read_text() == lock
    for path in (index / "cache").iterdir():
        path.write_bytes(b"other")
    with pytest.raises(PodiumError, match=r"tinyextra-3.0-py3-none-any.whl: is not the wheel of .*wheels.lock; delete"):
        obtain(index, "tinytool")


def test_what_cannot_be_resolved_is_pips_last_word(index):
    with pytest.raises(PodiumError, match=r"wheels: nosuchtool: ERROR: No matching distribution.*Python 3.12"):
        obtain(index, "nosuchtool")
    assert not (index / "wheels.lock").exists()
