"""The official client, unmodified, against a stand-in of Kaggle's API on loopback."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from kaggle_standin import KaggleStandIn, Refusal, StandInCompetition, connect, sign_in
from rich.console import Console
from tiny_competition import install_competition

from pipelines.competitions.download import download
from pipelines.errors import PodiumError
from pipelines.kaggle.client import CompetitionFile, KaggleClient, KaggleSubmission, SubmissionLimits
from pipelines.kaggle.retries import Retries
from pipelines.workspace import Workspace

FILES = {
    "test.csv": b"id\n1\n",
    "train.csv": b"id,label\n2,0\n",
    "images/a.txt": b"pixels",
    "sample_submission.csv": b"",
}
TOKEN_CURE = (
    'make a token at https://www.kaggle.com/settings/api ("Generate New Token") and save it as '
    "~/.kaggle/access_token (chmod 600), or set KAGGLE_API_TOKEN"
)


@pytest.fixture
def server():
    with KaggleStandIn({"tiny-task": StandInCompetition(dict(FILES))}) as server:
        yield server


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without credentials, and no KAGGLE_ variable of whoever runs the tests."""
    folder = tmp_path / "home"
    sign_in(monkeypatch, folder)
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    return folder


@pytest.fixture
def local_api(server, home, monkeypatch):
    """Point the imported client at the server; nothing else of it is touched."""
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    monkeypatch.setenv("KAGGLE_KEY", "secret-key")
    connect(monkeypatch, server)


@pytest.fixture
def naps():
    """The pauses a client took, none of which a test waits for."""
    return []


@pytest.fixture
def client(local_api, naps):
    return KaggleClient(Retries(sleep=naps.append))


def message_of(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "secret-key" not in text
    return text


def test_construction_prints_nothing_and_leaves_no_folder(home):
    """In a process of its own, for the import happens once: help text, warnings and folder are all the client's."""
    code = """
from pipelines.kaggle.client import KaggleClient
from pipelines.errors import PodiumError
try:
    KaggleClient()
except PodiumError as error:
    import sys
    sys.exit(f"ERROR {error}")
"""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    for extra in ({}, {"KAGGLE_CONFIG_DIR": str(home / "elsewhere")}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | extra, cwd=home, capture_output=True, text=True, check=False
        )
        assert done.stdout == ""
        assert done.stderr == f"ERROR kaggle: no credentials found; {TOKEN_CURE}\n"
        assert not (home / ".kaggle").exists()
        assert not (home / ".config" / "kaggle").exists()
        assert not (home / "elsewhere").exists()


def test_importing_the_adapter_does_not_import_kaggle(home):
    code = "import sys, pipelines.kaggle.client; print([m for m in sys.modules if m.startswith('kaggle')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_credentials(local_api, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(PodiumError) as error:
        KaggleClient()
    assert message_of(error) == f"kaggle: no credentials found; {TOKEN_CURE}"


@pytest.mark.parametrize(("place", "named"), [("variable", "KAGGLE_API_TOKEN"), ("file", "~/.kaggle/access_token")])
def test_a_token_is_checked_and_never_printed(local_api, server, home, monkeypatch, capsys, place, named):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    if place == "variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_abc")
    else:
        (home / ".kaggle").mkdir()
        (home / ".kaggle" / "access_token").write_text("KGAT_abc\n")
    with pytest.raises(PodiumError) as error:
        KaggleClient()
    assert message_of(error) == f"kaggle: the token in {named} is not valid (expired or revoked?); {TOKEN_CURE}"
    server.valid_tokens["KGAT_abc"] = "alice"
    assert len(KaggleClient().list_files("tiny-task")) == 4
    assert capsys.readouterr() == ("", "")


def test_a_wrong_key_is_refused(local_api, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "stale")
    with pytest.raises(PodiumError) as error:
        KaggleClient().list_files("tiny-task")
    assert message_of(error) == f"tiny-task: Kaggle does not accept your credentials (401); {TOKEN_CURE}"


def test_list_files_reads_every_page(client, server):
    assert client.list_files("tiny-task") == [
        CompetitionFile("images/a.txt", 6),
        CompetitionFile("sample_submission.csv", 0),
        CompetitionFile("test.csv", 5),
        CompetitionFile("train.csv", 13),
    ]
    assert [body.get("pageToken") for body in server.called("ListDataFiles")] == ["", "2"]


def test_download_into_a_new_folder(client, server, tmp_path, capfd):
    server.competitions["tiny-task"].nested_zips = frozenset({"train.csv"})
    folder = tmp_path / "data" / "tiny-task"
    files = client.download_competition("tiny-task", folder)
    assert files == [folder / name for name in sorted(FILES)]
    assert {str(path.relative_to(folder)): path.read_bytes() for path in files} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["tiny-task"]
    assert capfd.readouterr() == ("", "")


def test_the_stage_says_what_came_and_what_is_next(client, server, tmp_path, monkeypatch):
    server.competitions["tiny-task"].files["train.csv"] = b"x" * 12_345
    screen, workspace = io.StringIO(), Workspace(tmp_path)
    files = download(workspace, "tiny-task", console=Console(file=screen))
    assert files == [tmp_path / "data" / "tiny-task" / name for name in sorted(FILES)]
    assert screen.getvalue().splitlines() == [
        "file                    size",
        "images/a.txt             6 B",
        "sample_submission.csv    0 B",
        "test.csv                 5 B",
        "train.csv              12 kB",
        f"tiny-task: 4 files in {tmp_path / 'data' / 'tiny-task'}",
        "next: podium new competition tiny-task",
    ]
    install_competition(monkeypatch, tmp_path / "table")
    download(workspace, "tiny-task", console=Console(file=screen))
    assert screen.getvalue().count("next: ") == 1, "this one has its file already"


def test_download_keeps_what_else_lies_in_the_folder(client, tmp_path):
    folder = tmp_path / "tiny-task"
    folder.mkdir()
    (folder / "folds.csv").write_text("mine")
    (folder / "test.csv").write_text("old")
    client.download_competition("tiny-task", folder)
    assert (folder / "folds.csv").read_text() == "mine"
    assert (folder / "test.csv").read_bytes() == FILES["test.csv"]
    assert (folder / "images" / "a.txt").read_bytes() == b"pixels"


def test_download_refusals_leave_nothing(client, server, tmp_path):
    folder = tmp_path / "data" / "tiny-task"
    server.competitions["tiny-task"].rules_accepted = False
    with pytest.raises(PodiumError) as error:
        client.download_competition("tiny-task", folder)
    assert message_of(error) == (
        "tiny-task: Kaggle refuses (403: You must accept this competition's rules before you'll be able to download "
        "files.); accept the competition's rules at https://www.kaggle.com/competitions/tiny-task/rules"
    )
    with pytest.raises(PodiumError) as error:
        client.download_competition("tiny-tusk", tmp_path / "data" / "tiny-tusk")
    assert message_of(error) == (
        "tiny-tusk: Kaggle knows no such competition (404); take the slug from the address of its page, "
        "https://www.kaggle.com/competitions/<slug>"
    )
    assert list(folder.parent.iterdir()) == []


def test_a_damaged_archive_is_thrown_away(client, server, tmp_path):
    server.competitions["tiny-task"].archive = b"PK but no zip"
    with pytest.raises(PodiumError) as error:
        client.download_competition("tiny-task", tmp_path / "tiny-task")
    assert message_of(error) == "tiny-task.zip: the archive arrived damaged; run the download again"
    server.competitions["tiny-task"].archive = None
    assert len(client.download_competition("tiny-task", tmp_path / "tiny-task")) == 4


def test_archive_members_cannot_leave_the_folder(client, server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil.csv", "x")
    server.competitions["tiny-task"].archive = buffer.getvalue()
    assert client.download_competition("tiny-task", tmp_path / "data" / "tiny-task") == [
        tmp_path / "data" / "tiny-task" / "evil.csv"
    ]
    assert not list(tmp_path.glob("evil.csv"))


@pytest.mark.parametrize("names", [("a", "a/b.csv"), ("a/b.csv", "a"), ("a/", "a"), ("x/y/z.csv", "x/y")])
def test_a_file_and_a_folder_of_one_name_in_an_archive(client, server, tmp_path, names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("train.csv", *names):
            archive.writestr(name, "x")
    server.competitions["tiny-task"].archive = buffer.getvalue()
    with pytest.raises(PodiumError) as error:
        client.download_competition("tiny-task", tmp_path / "data" / "tiny-task")
    clash = "x/y" if names[0].startswith("x") else "a"
    line = (
        f"tiny-task.zip: {clash} is both a file and a folder in the archive; unpack it by hand from the competition's"
    )
    assert message_of(error).startswith(line)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["images", "train.csv/x", "images/a.txt/b.csv"])
def test_a_download_does_not_replace_a_folder_by_a_file(client, server, tmp_path, name):
    folder = tmp_path / "data" / "tiny-task"
    client.download_competition("tiny-task", folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("another.csv", "x")
        archive.writestr(name, "x")
    server.competitions["tiny-task"].archive = buffer.getvalue()
    with pytest.raises(PodiumError, match=r"is a (file|folder) here and none in the download; move it away"):
        client.download_competition("tiny-task", folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_submit_and_read_the_score(client, server, tmp_path):
    server.contests.num_unknown_polls = server.contests.num_pending_polls = 1
    path = tmp_path / "submission.csv"
    path.write_bytes(b"id,label\n1,0.5\n")
    assert client.submission_limits("tiny-task") == SubmissionLimits(num_today=0, num_total=0, num_allowed_now=5)
    assert client.submit_file("tiny-task", path, "first try") == 5000
    assert server.uploads == {"tok-1": b"id,label\n1,0.5\n"}
    upload = server.called("StartSubmissionUpload")[0]
    assert (upload["competitionName"], upload["contentLength"]) == ("tiny-task", 15)
    assert upload["fileName"] == "submission.csv"
    assert server.called("CreateSubmission") == [
        {"competitionName": "tiny-task", "blobFileTokens": "tok-1", "submissionDescription": "first try"}
    ]
    assert client.submission(5000) == KaggleSubmission(5000, "PENDING", None, None, "")
    assert client.submission(5000) == KaggleSubmission(5000, "PENDING", None, None, "", "first try")
    scored = KaggleSubmission(5000, "COMPLETE", 0.81234, None, "", "first try")
    assert client.submission(5000) == scored
    assert client.submissions("tiny-task") == [scored]
    assert client.submission_limits("tiny-task") == SubmissionLimits(num_today=1, num_total=1, num_allowed_now=4)


def test_a_failed_submission_says_why(client, server, tmp_path):
    server.competitions["tiny-task"].error = "Submission must have 10 rows"
    path = tmp_path / "submission.csv"
    path.write_text("id,label\n")
    ref = client.submit_file("tiny-task", path, "short")
    assert client.submission(ref) == KaggleSubmission(ref, "ERROR", None, None, "Submission must have 10 rows", "short")


def test_a_failed_upload_is_an_error(client, server, tmp_path):
    """2.2.4 prints it and returns an answer without a ref; 2.2.5 raises."""
    server.contests.upload_status = 400
    path = tmp_path / "submission.csv"
    path.write_text("id,label\n")
    with pytest.raises(PodiumError, match=r"failed|answered 400"):
        client.submit_file("tiny-task", path, "x")
    assert server.submissions == {}


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(429, "slow down"), "tiny-task: too many requests (429); wait a few minutes and try again"),
        (Refusal(500, "oops"), "tiny-task: Kaggle answered 500: oops; try again later"),
        (Refusal(400, "bad name"), "tiny-task: Kaggle answered 400: bad name; correct what it says"),
        # some errors arrive under HTTP status 200 and say what they are in the body only
        (
            Refusal(409, "is closed", http_status=200),
            "tiny-task: Kaggle answered 409: is closed; correct what it says",
        ),
    ],
)
def test_refusals_are_explained(client, server, refusal, said):
    server.faults["GetSubmissionLimits"] += [refusal] * 6
    with pytest.raises(PodiumError) as error:
        client.submission_limits("tiny-task")
    assert message_of(error) == said


def test_no_network(client, monkeypatch):
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:9")
    with pytest.raises(PodiumError) as error:
        client.submission_limits("tiny-task")
    assert message_of(error) == "tiny-task: Kaggle cannot be reached (ConnectionError); check the network"


def test_a_full_disk(client, tmp_path, monkeypatch):
    """/dev/full refuses every byte as a full disk does; the client tries five times, a minute in all."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    folder = tmp_path / "tiny-task"
    part = tmp_path / ".tiny-task.part"
    part.mkdir()
    (part / "tiny-task.zip").symlink_to(Path("/dev/full"))
    with pytest.raises(PodiumError) as error:
        client.download_competition("tiny-task", folder)
    assert message_of(error) == f"{folder}: the disk is full; free some space and run the download again"
    assert not folder.exists()
