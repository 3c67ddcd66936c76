"""kernel.yaml: what is taken, what is refused and in which words; where a kernel's inputs are found."""

import pytest
from project import ROOT
from tiny_competition import write_lines

from pipelines.errors import ConfigError, PodiumError
from pipelines.kernels.inputs import draw_tree, find_input, has_input, old_mount
from pipelines.kernels.kernel_file import ACCELERATORS, kernel_names, kernel_words, load_kernel_file, slugify
from pipelines.workspace import Workspace

GOOD = ("title: Tiny task", "mode: predict", "experiment: first_try")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def load(workspace, *lines):
    write_lines(workspace.kernels / "tiny-task" / "kernel.yaml", *lines)
    return load_kernel_file(workspace, "tiny-task")


def test_what_is_left_out_has_the_careful_value(workspace):
    file = load(workspace, *GOOD)
    assert (file.internet, file.private, file.accelerator, file.kind) == (False, True, "none", "cpu")
    assert (file.overrides, file.wheels, file.dataset_sources, file.owner) == ([], [], [], None)
    assert load(workspace, *GOOD, "accelerator: NvidiaTeslaT4").kind == "gpu"
    assert set(ACCELERATORS.values()) == {"cpu", "gpu", "tpu"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((*GOOD, "titel: x"), r"kernels/tiny-task/kernel.yaml: titel: no such key; did you mean title\?"),
        (GOOD[1:], r"title: missing"),
        ((GOOD[0], "mode: infer", GOOD[2]), r"mode: 'infer' is not known; needs one of predict, train"),
        (GOOD[:2], r"experiment: missing; needs an experiment's name, or run:"),
        ((*GOOD, "accelerator: NvidiaTeslaP100"), r"accelerator: 'NvidiaTeslaP100' is retired; use NvidiaTeslaT4"),
        ((*GOOD, "accelerator: T4"), r"accelerator: 'T4' is not known"),
        ((*GOOD, "time_limit_hours: 0"), r"time_limit_hours: 0.0 is out of range"),
        ((*GOOD, "internet: sometimes"), r"internet: 'sometimes' is text; needs true or false"),
        ((*GOOD, "dataset_sources: me/x"), r"dataset_sources: 'me/x' is no list of texts"),
        ((*GOOD, "overrides: [seed=2]"), r"overrides: with mode predict"),
        ((GOOD[0], "mode: train", GOOD[2], "run: 2026"), r"run: '2026' with mode train"),
        ((GOOD[0], "mode: train", GOOD[2], "reserve_minutes: 540"), r"reserve_minutes: 540.0 leaves nothing"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(workspace, lines, message):
    with pytest.raises(ConfigError, match=message):
        load(workspace, *lines)


def test_an_unknown_kernel_and_one_without_words(workspace):
    load(workspace, *GOOD)
    with pytest.raises(ConfigError, match=r"tiny-tusk: no such kernel; did you mean tiny-task\?; there are: tiny-task"):
        load_kernel_file(workspace, "tiny-tusk")
    with pytest.raises(ConfigError, match=r"kernels/tiny-task/notebook.md: missing or empty"):
        kernel_words(workspace, "tiny-task")


def test_the_kernels_of_this_repository_load_and_their_titles_make_their_slugs():
    workspace = Workspace(ROOT)
    names = kernel_names(workspace)
    assert len(names) == len([path for path in (ROOT / "kernels").iterdir() if path.is_dir()]) >= 4
    for name in names:
        assert slugify(load_kernel_file(workspace, name).title) == name
        assert kernel_words(workspace, name).startswith("# ")


def test_slugs_are_those_of_kaggles_client():
    from slugify import slugify as theirs

    for title in ("mT5 Adafactor", "T5 v1.1 train", "  XCiT: 224 px, 5 folds! ", "a_b--c", "BERT"):
        assert slugify(title) == theirs(title)


def test_mounts_of_before_2026():
    assert old_mount("competitions/titanic") == "titanic"
    assert old_mount("datasets/me/weights") == "weights"
    assert old_mount("notebooks/me/train-it") == "train-it"
    assert old_mount("models/google/mt5/pytorch/base/3") == "mt5/pytorch/base/3"


@pytest.mark.parametrize("place", ["datasets/me/weights", "weights", "datasets/somebody-else/weights", "a/b/c/weights"])
def test_an_input_is_found_wherever_kaggle_mounts_it(tmp_path, place):
    (tmp_path / "datasets/me/other").mkdir(parents=True)
    (tmp_path / place).mkdir(parents=True)
    assert find_input(tmp_path, "datasets/me/weights") == tmp_path / place


def test_the_new_layout_goes_before_the_old(tmp_path):
    for place in ("weights", "datasets/me/weights"):
        (tmp_path / place).mkdir(parents=True)
    assert find_input(tmp_path, "datasets/me/weights") == tmp_path / "datasets/me/weights"


def test_a_missing_input_shows_what_there_is(tmp_path):
    write_lines(tmp_path / "competitions/titanic/test.csv", "id")
    with pytest.raises(PodiumError, match=r"datasets/me/weights: not attached") as caught:
        find_input(tmp_path, "datasets/me/weights")
    assert str(caught.value).endswith("  competitions/\n    titanic/\n      test.csv")
    assert not has_input(tmp_path, "datasets/me/weights")
    for number in range(100):
        write_lines(tmp_path / f"{number:03}.txt", "x")
    assert draw_tree(tmp_path).splitlines()[-1] == "… 43 more"
