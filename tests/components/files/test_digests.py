"""What is sealed is found damaged by any change of it."""

import json
from itertools import product

import pytest

from components.files.digests import (
    DIGESTS,
    OWN_DIGEST,
    check_file,
    check_folder,
    check_seal,
    file_digest,
    read_object,
    sealed,
    sealed_folder,
)


def test_an_object_keeps_its_entries_and_a_change_of_any_is_found(tmp_path):
    content = {"a": 0.1, "b": {"c": [1, 2, None]}, "é": "ß", "nan": float("nan")}
    written = sealed(content)
    assert list(written) == [*content, OWN_DIGEST]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False), encoding="utf-8")
    assert read_object(path, is_required=True)["b"] == {"c": [1, 2, None]}
    assert sealed(sealed(content)) == sealed(written)
    for change in ({"a": 0.10000000000000002}, {"d": 1}, {"b": {"c": [1, 2]}}, {OWN_DIGEST: "0" * 64}):
        with pytest.raises(ValueError, match=r"place: damaged or changed by hand"):
            check_seal(written | change, "place")


def test_tuples_and_numbers_as_keys_are_sealed_as_they_come_back():
    assert sealed({"a": (1, 2), "b": {3: 4}}) == sealed(json.loads(json.dumps({"a": [1, 2], "b": {"3": 4}})))


def test_an_object_without_a_seal_passes_unless_it_must_have_one(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert read_object(path) == {"a": 1}
    with pytest.raises(ValueError, match=r"x\.json: damaged"):
        read_object(path, is_required=True)


@pytest.mark.parametrize("text", ["", "[1]", '"a"', "[" * 100_000, '{"a": 1', '{"a": "\xff"}'])
def test_what_is_no_object_names_its_file(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.json: (unreadable|damaged)") as error:
        read_object(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"y\.json: missing"):
        read_object(tmp_path / "y.json")


def make_folder(folder):
    with sealed_folder(folder) as partial:
        (partial / "weights").write_bytes(bytes(range(64)))
        (partial / "inner").mkdir()
        (partial / "inner" / "words.txt").write_text("a\n")
    return folder


def test_a_folder_names_the_file_of_which_any_bit_differs(tmp_path):
    folder = make_folder(tmp_path / "a")
    check_folder(folder)
    assert json.loads((folder / DIGESTS).read_text())["files"] == {
        name: file_digest(folder / name) for name in ("inner/words.txt", "weights")
    }
    whole = (folder / "weights").read_bytes()
    for byte, bit in product(range(0, 64, 7), range(8)):
        content = bytearray(whole)
        content[byte] ^= 1 << bit
        (folder / "weights").write_bytes(content)
        with pytest.raises(ValueError, match="a/weights: damaged or changed"):
            check_folder(folder)


@pytest.mark.parametrize("name", ["weights", "inner/words.txt", DIGESTS])
def test_a_file_of_a_folder_that_is_missing_or_cut_is_named(tmp_path, name):
    folder = make_folder(tmp_path / "a")
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"a/{name}: (damaged|unreadable)"):
        check_folder(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"a/{name}: missing"):
        check_folder(folder)


def test_each_flipped_bit_of_the_digests_is_found(tmp_path):
    """A blank for another one changes nothing, and is no damage."""
    file = make_folder(tmp_path / "a") / DIGESTS
    whole = file.read_bytes()
    for byte in range(0, len(whole), 3):
        content = bytearray(whole)
        content[byte] ^= 1
        file.write_bytes(content)
        if _reads_the_same(content, whole):
            check_folder(file.parent)
        else:
            with pytest.raises(ValueError, match=str(file.parent)):
                check_folder(file.parent)


def _reads_the_same(content, whole):
    try:
        return json.loads(content) == json.loads(whole)
    except ValueError:
        return False


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: unreadable"):
        check_file(tmp_path, "0" * 64)
