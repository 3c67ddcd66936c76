"""A damaged file of a run ends in one line that names it, or in the very result of a whole run; never in another."""

import json
import random
import shutil

import pytest
from podium_processes import only_run, products
from small_runs import TEXT, copied, flip, interrupt, podium, random_damage, refused, strip_digests, tear

from components.files.digests import file_digest
from pipelines.runs.run import Run

NAME = TEXT[0]


@pytest.fixture(scope="module")
def finished(template, tmp_path_factory):
    """A workspace with a finished run of two folds."""
    from pipelines.workspace import Workspace

    workspace = copied(Workspace(template), tmp_path_factory.mktemp("finished") / "checkout")
    podium(workspace, "train", *TEXT)
    return workspace


@pytest.fixture(scope="module")
def interrupted(finished, tmp_path_factory):
    """The same run, interrupted in its second fold after step 8: its resume points there are of steps 6 and 8."""
    workspace = copied(finished, tmp_path_factory.mktemp("interrupted") / "checkout")
    shutil.rmtree(workspace.runs)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt(patch, 9 + 8)
        podium(workspace, "train", *TEXT)
    return workspace


@pytest.fixture
def whole(finished, tmp_path):
    return copied(finished, tmp_path / "checkout")


@pytest.fixture
def stopped(interrupted, tmp_path):
    return copied(interrupted, tmp_path / "checkout")


def test_every_file_of_a_run_is_named_by_a_digest(finished):
    """By run.json, by a result that it names, or by the digests of a folder; but for what nothing reads again."""
    run = only_run(finished)
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    named = set(json.loads((run / "run.json").read_text())["files_sha256"])
    for result in run.glob("*/result.json"):
        named |= {f"{result.parent.name}/{name}" for name in json.loads(result.read_text())["files_sha256"]}
    for digests in run.rglob("digests.json"):
        inner = json.loads(digests.read_text())["files"]
        named |= {f"{digests.parent.relative_to(run).as_posix()}/{name}" for name in inner}
    points = {name for name in files if "/resume/" in name and name.endswith("digests.json")}
    pictures = {name for name in files if name.startswith("figures/")}
    assert files - named == {"run.json"} | points | pictures


def test_the_resume_point_before_is_taken_and_said(stopped, finished, capsys):
    run = only_run(stopped)
    tear(run / "fold1/resume/step-00000008/ema.safetensors")
    podium(stopped, "resume", NAME)
    said = capsys.readouterr().err
    assert f"{run}/fold1/resume/step-00000008/ema.safetensors: damaged or changed" in said.replace("\n", "")
    assert "the resume point of step 8 is not used, training goes on from step 6" in said
    assert products(run) == products(only_run(finished))
    assert [path.name for path in (run / "fold1/resume").iterdir()] == ["step-00000009"]


DAMAGED_FOLD = (
    "fold0/oof.parquet", "fold0/result.json", "fold0/history.jsonl", "fold0/checkpoints/*/model.safetensors",
    "fold0/checkpoints/*/digests.json",
)  # fmt: skip


@pytest.mark.parametrize("pattern", DAMAGED_FOLD)
def test_a_damaged_file_of_a_finished_fold_is_refused_with_the_cure(stopped, capsys, pattern):
    (path,) = only_run(stopped).glob(pattern)
    before = (only_run(stopped) / "run.json").read_bytes()
    flip(path)
    message = refused(stopped, capsys, "resume", NAME)
    assert message.startswith(f"{path}: ")
    assert f"delete {only_run(stopped) / 'fold0'} and `make resume RUN={only_run(stopped).name}` trains" in message
    assert (only_run(stopped) / "run.json").read_bytes() == before


def test_the_cure_for_a_damaged_fold_of_a_finished_run_cures(whole, finished, capsys):
    run = only_run(whole)
    flip(run / "fold0/oof.parquet")
    shutil.rmtree(run / "fold0")
    assert f"{run}/fold0/result.json: missing; " in refused(whole, capsys, "predict", NAME)
    podium(whole, "resume", "--run", run.name)
    said = capsys.readouterr().err
    assert "result.json: missing, though run.json names it; fold0 is trained to its end again" in said
    assert products(run) == products(only_run(finished))
    assert refused(whole, capsys, "resume", "--run", run.name).partition(": ")[2].startswith("finished already")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", ("put the former file back", "make experiment EXP=smoke_mt5_adafactor SET=...")),
        ("folds.csv", ("put it back from a copy",)),
        ("vocabulary/spiece.model", ("put it back from a copy",)),
        ("run.json", ("digest beside them", "restore the file")),
    ],
)
def test_a_file_that_all_folds_share_is_named_at_resume(stopped, capsys, name, words):
    path = only_run(stopped) / name
    if name == "folds.csv":  # an id
        path.write_text(path.read_text().replace(path.read_text().splitlines()[1], "other,0", 1))
    elif name == "config.yaml":
        path.write_text(path.read_text().replace("num_steps: 9", "num_steps: 12"))
    elif name == "run.json":
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    else:
        flip(path)
    message = refused(stopped, capsys, "resume", NAME)
    assert message.startswith(f"{path}: damaged or changed")
    for word in words:
        assert word in message


PREDICTING = (
    "fold0/checkpoints/*/model.safetensors", "fold1/checkpoints/*/config.json", "fold1/checkpoints/*/digests.json",
    "fold1/result.json", "vocabulary/*.model", "config.yaml", "run.json",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PREDICTING)
def test_what_predicting_reads_is_held_against_its_digests(whole, capsys, pattern):
    run = only_run(whole)
    path = sorted(run.glob(pattern))[0]
    before = file_digest(run / "submission.csv")
    # The sign and the high bits of the exponent of the last weight.
    flip(path, byte=path.stat().st_size - 5 if path.suffix != ".safetensors" else path.stat().st_size - 1)
    for command in ("predict", "submit"):
        message = refused(whole, capsys, command, NAME)
        assert str(path) in message
        assert "\n" not in message
    path.unlink()
    assert (str(path) if path.name != "run.json" else "run it first") in refused(whole, capsys, "predict", NAME)
    assert file_digest(run / "submission.csv") == before


def test_a_damaged_submission_is_not_sent_and_predicting_writes_it_again(whole, capsys):
    run = Run(only_run(whole))
    before = run.submission_file.read_bytes()
    flip(run.submission_file, byte=len(before) - 3, bit=0)
    message = refused(whole, capsys, "submit", NAME)
    assert message.startswith(f"{run.submission_file}: damaged or changed")
    assert f"`make predict RUN={run.path.name}` writes it again" in message
    podium(whole, "predict", "--run", run.path.name)
    assert run.submission_file.read_bytes() == before
    podium(whole, "submit", NAME)


def test_a_newer_damaged_run_is_not_passed_over_for_an_older_one(whole, capsys):
    older = only_run(whole)
    newer = shutil.copytree(older, older.with_name("20990101-000000-aaaa"))
    Run(newer).update_record(run=newer.name)
    assert refused(whole, capsys, "predict", NAME) == ""
    flip(newer / "run.json", byte=30, bit=0)
    message = refused(whole, capsys, "predict", NAME)
    assert message.startswith(f"{newer / 'run.json'}: ")
    assert f"RUN={older.name}" in message
    assert refused(whole, capsys, "predict", "--run", older.name) == ""


def test_tables_name_a_damaged_run(whole, capsys):
    run = only_run(whole)
    for damage in (flip, tear, lambda path: path.unlink()):
        content = (run / "metrics.json").read_bytes()
        damage(run / "metrics.json")
        podium(whole, "compare", NAME)
        assert f"damaged: {run / 'metrics.json'}: " in capsys.readouterr().out
        podium(whole, "runs", "list")
        assert run.name in capsys.readouterr().out
        (run / "metrics.json").write_bytes(content)
    podium(whole, "compare", NAME)
    assert "damaged" not in capsys.readouterr().out


def test_records_of_older_versions_that_are_nonsense_hide_nothing(whole, capsys):
    """Of before there were digests: a text for a number, and a nesting that no reader follows."""
    run = only_run(whole)
    record = json.loads((run / "run.json").read_text())
    del record["files_sha256"], record["own_sha256"]
    for number, text in enumerate((json.dumps(record | {"wall_seconds": "long"}), "[" * 99_999, '{"a": ' * 9_999)):
        folder = run.with_name(f"20990101-00000{number}-aaaa")
        folder.mkdir()
        (folder / "run.json").write_text(text)
    for command in (("runs", "list"), ("compare", NAME)):
        podium(whole, *command)
        assert run.name in capsys.readouterr().out
    damages = [record.damage for record in Run.list(whole.runs) if record.damage]
    assert "wall_seconds: 'long' is not a number" in damages[0]
    assert [damage.endswith("unreadable (nested too deeply)") for damage in damages] == [False, True, True]
    for number in range(3):
        message = refused(whole, capsys, "resume", "--run", f"20990101-00000{number}-aaaa")
        assert f"00000{number}-aaaa/run.json: " in message


def test_a_run_of_an_older_version_predicts_and_resumes(stopped, finished, capsys):
    """Without any digest it is read unchecked, as before."""
    run = only_run(stopped)
    strip_digests(run)
    podium(stopped, "resume", NAME)
    assert "files_sha256" not in json.loads((run / "run.json").read_text())
    straight = only_run(finished)
    for name in ("submission.csv", "oof.parquet", "metrics.json", "fold1/history.jsonl"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()
    flip(run / "fold1/history.jsonl")
    podium(stopped, "predict", NAME)
    assert (run / "submission.csv").read_bytes() == (straight / "submission.csv").read_bytes()


def test_resume_takes_no_overrides(stopped, capsys):
    before = (only_run(stopped) / "run.json").read_bytes()
    for words in ((NAME, "optimizer.lr=1"), ("optimizer.lr=1", "--run", only_run(stopped).name)):
        message = refused(stopped, capsys, "resume", *words)
        assert message.startswith("resume takes no optimizer.lr=1: ")
    assert (only_run(stopped) / "run.json").read_bytes() == before


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_finished_run_predicts_the_same_or_nothing(whole, finished, capsys, seed):
    source = random.Random(seed)
    run = only_run(whole)
    path = source.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    random_damage(path, source)
    message = refused(whole, capsys, "predict", "--run", str(run))
    if message:
        assert "\n" not in message
        assert str(path) in message or not path.exists()
    else:
        assert (run / "submission.csv").read_bytes() == (only_run(finished) / "submission.csv").read_bytes()
