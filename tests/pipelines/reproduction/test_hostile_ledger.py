"""Records and kept files that others wrote into ledger/: nothing of them is written or read elsewhere."""

import hashlib
import json
from dataclasses import replace

import pytest
from canary import make_canary, untouched
from hostile_records import OMITTED, RECORD, REF, RUN, SHA, entry_of, write_record
from tiny_competition import write_lines

from pipelines.errors import PodiumError
from pipelines.reproduction.file_finder import FileFinder
from pipelines.reproduction.rebuilding import gather_run
from pipelines.reproduction.reproduce import reproduce
from pipelines.reproduction.winner.package import write_winner_package
from pipelines.submissions.ledger import Ledger
from pipelines.submissions.ledger_entry import LedgerEntry
from pipelines.workspace import Workspace

KERNEL = RECORD["kernel"]
NEEDED = ["experiment", "commit", "files_sha256", "weights_sha256", "config_sha256", "source_sha256", "versions"]
NEEDED += ["machine", "data_sha256", "submission_sha256"]
BAD_NAMES = ["", ".", "..", "../x", "OUT", "a/../../b", "a\\b", "a\0b", "a\nb", "-x", 7]
BAD_PLACES = [
    "../../../../outside/new.txt",
    "OUT/new.txt",
    "/etc/x",
    "",
    ".",
    "..",
    "a//b",
    "a/./b",
    "a/..",
    "a\\b",
    "a\0b",
]
BAD_DIGESTS = ["../../../outside/secret.txt", "OUT/secret.txt", "", "a" * 63, "A" * 64, "g" * 64, 5, None]
BAD_COMMITS = ["--upload-pack=touch x", "-h", "HEAD", "../x", "", "c" * 40 + "\n", 5]


@pytest.fixture
def workspace(tmp_path):
    make_canary(tmp_path / "outside")
    workspace = Workspace(tmp_path / "checkout")
    write_lines(workspace.runs / "smoke_first_try" / RUN / "run.json", "{}")
    return workspace


def write_former_line(workspace, **changes):
    return write_lines(workspace.ledger / "ledger.jsonl", json.dumps(RECORD | changes))


FORMS = ((write_record, "", "record"), (write_former_line, "line 1: ", "lines"))


def refused(workspace, match, **changes):
    """Neither listing nor finding, reproducing or packing goes on with such a record, and nothing is written."""
    for write, line, what in FORMS:
        path = write(workspace, **changes)
        refused_as_it_is(
            workspace, f"^{path}: {line}{match}.*: `git checkout -- ledger` brings the committed {what} back"
        )
        path.unlink()


def refused_as_it_is(workspace, match):
    ledger = Ledger(workspace.ledger)
    actions = (
        ledger.records,
        lambda: ledger.find(REF),
        lambda: reproduce(workspace, REF, into=workspace.root / "into"),
        lambda: reproduce(workspace, REF, retrain=True),
        lambda: write_winner_package(workspace, REF),
    )
    for action in actions:
        with untouched(workspace.root.parent), pytest.raises(PodiumError, match=match) as error:
            action()
        assert len(str(error.value).splitlines()) == 1


def at(workspace, value):
    return value.replace("OUT", str(workspace.root.parent / "outside")) if isinstance(value, str) else value


@pytest.mark.parametrize("value", BAD_NAMES)
@pytest.mark.parametrize("key", ["ref", "run", "experiment", "competition", "host"])
def test_a_name_that_leads_elsewhere(workspace, key, value):
    refused(workspace, f"{key}: ", **{key: at(workspace, value)})


@pytest.mark.parametrize("name", BAD_PLACES)
@pytest.mark.parametrize("key", ["files_sha256", "weights_sha256", "data_sha256", "kernel.files_sha256"])
def test_a_file_that_is_named_to_lie_elsewhere(workspace, key, name):
    files = {"fold0/a.json": SHA, at(workspace, name): SHA}
    is_kernels = key.startswith("kernel.")
    changes = {"kernel": RECORD["kernel"] | {"files_sha256": files}} if is_kernels else {key: files}
    refused(workspace, rf"{key}\..*: '", **changes)


@pytest.mark.parametrize("digest", BAD_DIGESTS)
@pytest.mark.parametrize("key", ["files_sha256", "weights_sha256", "config_sha256", "diff.sha256"])
def test_a_digest_that_is_a_path(workspace, key, digest):
    digest = at(workspace, digest)
    if digest is None and key in ("config_sha256", "diff.sha256"):
        return  # there is none
    value = {
        "files_sha256": {"x.json": digest},
        "weights_sha256": {"x.json": digest},
        "diff.sha256": {"sha256": digest},
    }
    refused(workspace, rf"{key}(.x.json)?: .* is (no sha256|not a text)", **{key.split(".")[0]: value.get(key, digest)})


@pytest.mark.parametrize("commit", BAD_COMMITS)
def test_a_commit_that_is_an_option_of_git(workspace, commit):
    refused(workspace, "commit: .* is (no commit; needs its id|not a text)", commit=commit)
    refused(workspace, "kernel.commit: ", kernel=RECORD["kernel"] | {"commit": commit})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mode": "ld_preload"}, "mode: 'ld_preload': no such mode; it is null, smoke or overfit"),
        (
            {"kernel": KERNEL | {"built_with": {"resume": False, "mode": "path"}}},
            "kernel.built_with.mode: 'path': no such mode",
        ),
        (
            {"kernel": KERNEL | {"kernel": "alice/../x"}},
            "kernel.kernel: 'alice/../x' is no address on Kaggle; needs ow",
        ),
        ({"kernel": KERNEL | {"kernel": "alice"}}, "kernel.kernel: 'alice' is no address"),
        ({"kernel": KERNEL | {"kernel": "alice/--help"}}, "kernel.kernel: 'alice/--help' is no address"),
        ({"kernel": "alice/x"}, "kernel: 'alice/x' is not an object"),
        ({"files_sha256": ["x"]}, r"files_sha256: \['x'\] is not an object"),
        ({"data_sha256": "x"}, "data_sha256: 'x' is not an object"),
        ({"command": "train x"}, "command: 'train x' is not a list"),
        ({"command": ["train", 5]}, "command.1: 5 is not a text"),
        ({"machine": {"torch_threads": "1; x"}}, "machine.torch_threads: '1; x' is not a whole number"),
        ({"machine": {"torch_threads": 0}}, "machine.torch_threads: 0 is not greater than 0"),
        ({"versions": {"torch": "1.0 --index-url http://x"}}, "versions.torch: .* is no version"),
        ({"versions": {"torch": "1.0\n-e ./x"}}, "versions.torch: .* is no version"),
        ({"ref": "local:../x:3"}, "ref: 'local:../x:3' is no name"),
        ({"ref": "elsewhere:3"}, "ref: 'elsewhere:3' is no ref; needs kaggle:1234, or local:place_names:3"),
        ({"ref": "kaggle:x"}, "ref: 'kaggle:x' is no ref"),
        ({"submission_sha256": "../x"}, "submission_sha256: '../x' is no sha256"),
        ({"status": "FINE"}, "status: 'FINE' is not 'PENDING', 'COMPLETE' or 'ERROR'"),
    ],
)
def test_entries_that_become_arguments_and_variables(workspace, changes, match):
    refused(workspace, match, **changes)


def test_a_record_that_was_edited_by_hand_is_named(workspace):
    path = write_record(workspace)
    sound = json.loads(path.read_text())
    path.write_text(json.dumps(sound | {"commit": "d" * 40}))
    refused_as_it_is(
        workspace, rf"^{path}: damaged or changed by hand \(its entries no longer have the digest beside them"
    )
    path.write_text(json.dumps(sound | {"commit": "main"}))
    refused_as_it_is(workspace, rf"^{path}: commit: 'main' is no commit; needs its id")
    del sound["own_sha256"]
    path.write_text(json.dumps(sound))
    refused_as_it_is(workspace, rf"^{path}: damaged or changed by hand")
    path.write_text("<<<<<<< HEAD\n")
    refused_as_it_is(workspace, rf"^{path}: damaged \(no JSON: ")


def test_a_record_lies_where_its_entries_say(workspace):
    path = write_record(workspace)
    other = path.rename(path.with_name("2@elsewhere.json"))
    refused_as_it_is(workspace, rf"^{other}: is the record of {REF}@{RUN}, which another file is named by")


def test_nothing_is_written_through_a_link_that_came_with_a_clone(workspace):
    outside = workspace.root.parent / "outside"
    workspace.ledger.mkdir()
    for name in ("local", "files"):
        (workspace.ledger / name).symlink_to(outside)
    ledger = Ledger(workspace.ledger)
    entry = LedgerEntry.of({key: value for key, value in RECORD.items() if value is not None}, "record")
    for action in (lambda: ledger.write(entry), lambda: ledger.keep(b"a: 1\n")):
        with untouched(outside), pytest.raises(PodiumError, match=r"leads out of .*ledger; .*remove the symbolic link"):
            action()


def test_a_later_line_is_held_as_the_first_one(workspace):
    with write_former_line(workspace).open("a") as file:
        file.write(json.dumps({"event": "changed", "ref": REF, "run": RUN, "files_sha256": {"../x": SHA}}) + "\n")
    refused_as_it_is(workspace, r"line 2: files_sha256\.\.\./x: '../x' does not stay in its folder")


def test_a_record_that_could_not_be_read_again_is_not_written(workspace):
    write_record(workspace)
    ledger = Ledger(workspace.ledger)
    entry = replace(ledger.find(REF), data_sha256={"a\nb.csv": SHA})
    with untouched(workspace.root), pytest.raises(PodiumError) as error:
        ledger.write(entry)
    assert str(error.value).startswith(
        f"{workspace.ledger}: {REF}@{RUN}: data_sha256.a\\nb.csv: 'a\\nb.csv' is no name;"
    )


def test_records_of_other_versions_load(workspace):
    """What they lack is not missed, what they added is not judged."""
    older = {"event": "submitted", "ref": REF, "run": RUN, "experiment": "smoke/first_try"}
    newer = RECORD | {"ref": "kaggle:7", "weather": "../fine", "notes": {"../x": 1}, "kernel": None, "diff": None}
    write_lines(workspace.ledger / "ledger.jsonl", json.dumps(older), json.dumps(newer))
    assert [record.ref for record in Ledger(workspace.ledger).records()] == [REF, "kaggle:7"]
    write_record(workspace, weather="../fine")
    found = Ledger(workspace.ledger).find(REF)
    assert found.files_sha256 == RECORD["files_sha256"], "the file goes before the line"


@pytest.mark.parametrize("key", NEEDED)
def test_a_record_that_lacks_what_reproducing_needs(workspace, key):
    """In a line of the version before null said that there is none."""
    changes = {"kernel": None} if key == "commit" else {}
    lacking = {name: value for name, value in (RECORD | changes).items() if name != key}
    for write in (
        lambda: write_lines(workspace.ledger / "ledger.jsonl", json.dumps(lacking)),
        lambda: write_former_line(workspace, **changes, **{key: None}),
        lambda: write_record(workspace, **changes, **{key: OMITTED}),
    ):
        path = write()
        for action in (reproduce, write_winner_package):
            with untouched(workspace.root), pytest.raises(PodiumError, match=rf"^{REF}: the record has no {key}; "):
                action(workspace, REF)
        path.unlink()


def test_the_words_of_a_training(workspace):
    write_record(workspace)
    entry = Ledger(workspace.ledger).find(REF)
    assert entry.training_words() == ["train", "first_try", "seed=2"]
    with pytest.raises(PodiumError, match=r"command: '--root=/x' is an option"):
        replace(entry, command=("podium", "train", "--root=/x", "first_try")).training_words()


# -- files that the ledger keeps -------------------------------------------------------------------------------------


def test_a_kept_file_is_held_against_its_name(workspace):
    ledger = Ledger(workspace.ledger)
    digest = ledger.keep(b"a: 1\n")
    place = workspace.ledger / "files" / digest
    assert ledger.kept(digest) == place
    place.write_bytes(b"a: 2\n")
    with pytest.raises(
        PodiumError, match=rf"{digest}: was changed, its bytes are not those of its name: `git checkout"
    ):
        ledger.kept(digest)
    record = entry_of(workspace, config_sha256=digest)
    with pytest.raises(PodiumError, match=rf"{digest}: was changed"):
        gather_run(ledger, record, FileFinder([]), workspace.runs, workspace.root / "run")
    assert not (workspace.root / "run").exists()
    assert ledger.keep(b"a: 1\n") == digest
    assert place.read_bytes() == b"a: 1\n"
    assert ledger.kept("b" * 64) is None
    with pytest.raises(ValueError, match="is no sha256"):
        ledger.kept("../ledger.jsonl")


def test_a_name_is_no_pattern(workspace, tmp_path):
    write_lines(tmp_path / "weights" / "other.bin", "x")
    digest = hashlib.sha256(b"x\n").hexdigest()
    finder = FileFinder([tmp_path / "weights"])
    assert finder.find("*", digest) is None
    assert finder.find("x.bin", digest) == tmp_path / "weights" / "other.bin"
