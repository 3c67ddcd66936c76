"""Names, requirements and addresses that were typed or stand in kernel.yaml, wheels.lock and MANIFEST.json."""

import json
import shutil
from pathlib import Path

import pytest
from built_kernels import make_kernel
from canary import make_canary, untouched
from tiny_competition import write_lines
from tiny_wheels import make_index

from pipelines import cli
from pipelines.competitions import catalogue
from pipelines.competitions.loading import competition_file, competition_names, load_competition
from pipelines.errors import ConfigError, PodiumError
from pipelines.kernels.built_kernel import find_owner, load_built_kernel
from pipelines.kernels.kernel_file import load_kernel_file
from pipelines.kernels.wheels import obtain_wheels
from pipelines.scaffolding.new import new_competition
from pipelines.scaffolding.own_modules import is_own_module
from pipelines.workspace import Workspace

SHA = "a" * 64
GOOD = {"title": "Tiny task", "mode": "predict", "experiment": "first_try"}
BAD_NAMES = ["../x", "..", ".", "", "/etc", "a/b", "a\\b", "a\nb", "-x", ".hidden", "a\0b", "x" * 300]
REQUIREMENTS = [
    "./setup",
    "setup/",
    "../setup",
    "OUT/setup",
    ".",
    "-e",
    "-e ./setup",
    "--editable=./setup",
    "--editable=OUT/setup",
    "-rOUT/secret.txt",
    "--requirement=/etc/passwd",
    "--index-url=http://127.0.0.1:1/simple",
    "--extra-index-url=http://127.0.0.1:1/simple",
    "--find-links=.",
    "--no-binary=:all:",
    "--",
    "--config-settings=x=y",
    "http://127.0.0.1:1/x.whl",
    "git+file://OUT/setup",
    "file://OUT/setup",
    "file:setup",
    "setup @ file://OUT/setup",
    "setup@file://OUT/setup",
    "setup @ ./setup",
    "setup[extra] @ git+https://127.0.0.1:1/x.git",
    "setup===./setup",
    "setup===../x/setup",
    "setup.zip",
    "setup.tar.gz",
    "setup-1.0-py3-none-any.whl",
    "tinytool==1.2\n./setup",
    "tinytool==1.2 ./setup",
    "tinytool==1.2 --hash=sha256:00",
    "tinytool==1.2 --global-option=x",
    "tinytool; -e ./setup",
    "${HOME}/setup",
    "~/setup",
    "set\\up",
    " ",
]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A checkout, a package index of wheels, and beside them a package whose setup.py leaves a trace when it is run."""
    make_index(tmp_path / "index", monkeypatch)
    outside = make_canary(tmp_path / "outside")
    workspace = Workspace(tmp_path / "checkout")
    for folder in (outside / "setup", workspace.root / "setup"):
        trace = f"import pathlib; pathlib.Path({str(outside / 'ran')!r}).write_text('ran')"
        write_lines(folder / "setup.py", trace, "from setuptools import setup", "setup(name='setup', version='1')")
    shutil.make_archive(str(workspace.root / "setup"), "zip", workspace.root / "setup")
    shutil.make_archive(str(workspace.root / "setup"), "gztar", workspace.root / "setup")
    shutil.copy(workspace.root / "setup.zip", workspace.root / "setup-1.0-py3-none-any.whl")
    write_lines(workspace.image_constraints, "tinybase==1.0")
    monkeypatch.chdir(workspace.root)
    return workspace


def write_kernel(workspace, **changes):
    write_lines(workspace.kernels / "tiny-task" / "kernel.yaml", json.dumps(GOOD | changes))


# -- wheels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_pip_is_asked_for_packages_only(workspace, requirement):
    outside = workspace.root.parent / "outside"
    requirement = requirement.replace("OUT", str(outside))
    write_kernel(workspace, wheels=["tinytool==1.2", requirement])
    with untouched(outside, workspace.root):
        with pytest.raises(
            ConfigError, match=r"kernels/tiny-task/kernel.yaml: wheels: .*; needs a package's name"
        ) as error:
            load_kernel_file(workspace, "tiny-task")
        assert len(str(error.value).splitlines()) == 1
        with pytest.raises(PodiumError, match=r"wheels: .*; needs a package's name"):
            obtain(workspace, requirement)
    assert not (outside / "ran").exists()


def obtain(workspace, *requirements):
    lock, cache = workspace.kernels / "tiny-task" / "wheels.lock", workspace.build / "wheels"
    return obtain_wheels(requirements, lock=lock, cache=cache, image=workspace.image_constraints)


@pytest.mark.parametrize(
    "requirement",
    [
        "tinytool",
        "tinytool==1.2",
        "tinytool >=1.1,<2",
        "tinytool~=1.1",
        "tinytool!=1.1",
        "tinytool[fast]==1.2",
        'tinytool==1.2; python_version >= "3.9"',
        "TinyTool===1.2",
        "tinytool==1.*",
    ],
)
def test_what_pip_may_be_asked_for(workspace, requirement):
    write_kernel(workspace, wheels=[requirement])
    assert load_kernel_file(workspace, "tiny-task").wheels == [requirement]


def test_what_pip_is_asked_for_arrives(workspace):
    wheels = obtain(workspace, 'tinytool[fast]>=1.1,<2; python_version >= "3.9"', "TinyBase===2.0")
    assert [path.name for path in wheels] == [
        "tinybase-2.0-py3-none-any.whl",
        "tinyextra-3.0-py3-none-any.whl",
        "tinytool-1.2-py3-none-any.whl",
    ]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (f"{SHA}  ../../x-1.0-py3-none-any.whl", "is no name"),
        (f"{SHA}  /etc/x-1.0-py3-none-any.whl", "is no name"),
        (f"{SHA}  -r-1.0-py3-none-any.whl", "is no name"),
        (f"{SHA}  passwd", "is no wheel; needs name-version-python-abi-platform.whl"),
        (f"{SHA}  x.whl", "is no wheel"),
        (f"{SHA}  x-1.0 -rsecret-py3-none-any.whl", "is no wheel"),
        ("../../x  x-1.0-py3-none-any.whl", "is no sha256"),
        (SHA, "is no name"),
        ("", "is no sha256"),
    ],
)
def test_a_lock_that_names_other_files(workspace, line, match):
    write_lines(workspace.kernels / "tiny-task" / "wheels.lock", "# wheels for Kaggle's image: tinytool", line)
    with (
        untouched(workspace.root.parent),
        pytest.raises(PodiumError, match=rf"wheels.lock, line 2: .*{match}.*resolve"),
    ):
        obtain(workspace, "tinytool")


# -- kernel.yaml -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("owner", value) for value in ("x/y", "../x", "", ".", "-x", "a b", "a\nb", "a.b")),
        *(("title", value) for value in ("", " ", "a\nb", "a\0b")),
        *(("run", value) for value in ("../x", "/etc", "a/../../b", "", ".", "-x", "a\\b")),
        *(("dataset_sources", [value]) for value in ("../x", "a/..", "/etc/x", "a/b/c/d", "a b/c", "a/b\n", "-x/y")),
        *(("kernel_sources", [value]) for value in ("../x", "a/..", "/x", "a//b")),
        *(("model_sources", [value]) for value in ("a/b", "a/b/c", "a/b/../d/1", "/a/b/c/d", "a")),
        *(("competition_sources", [value]) for value in ("a/b", "..", "-x")),
        ("keywords", ["a\nb"]),
    ],
)
def test_an_address_in_kernel_yaml_that_is_none(workspace, key, value):
    write_kernel(workspace, **{key: value})
    with pytest.raises(ConfigError, match=rf"^kernels/tiny-task/kernel.yaml: {key}: ") as error:
        load_kernel_file(workspace, "tiny-task")
    assert len(str(error.value).splitlines()) == 1


def test_addresses_that_are_some(workspace):
    write_kernel(
        workspace,
        owner="alice-2",
        run="first_try/20261121-100000-bbbb",
        dataset_sources=["alice/my-data", "alice/my.data_2/3"],
        kernel_sources=["bob/train-it"],
        model_sources=["google/mt5/pyTorch/base/1"],
        competition_sources=["titanic"],
        keywords=["nlp", "text mining"],
    )
    assert load_kernel_file(workspace, "tiny-task").owner == "alice-2"


@pytest.mark.parametrize(
    "value",
    [
        "!!binary aGVsbG8=", "!!bool abc", "!!timestamp abc", "!!timestamp 2020-01-01", "!!set {a, b}",
        "!!int abc", "!!float abc", "!!python/object/apply:os.getcwd []", "[!!binary aGVsbG8=]",
        "[" * 2000 + "]" * 2000, "{a: " * 2000 + "1" + "}" * 2000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["owner", "memory_gb", "hidden_rows", "internet", "wheels"])
def test_yaml_that_is_no_value(workspace, key, value):
    write_lines(
        workspace.kernels / "tiny-task" / "kernel.yaml", *(f"{k}: {v}" for k, v in GOOD.items()), f"{key}: {value}"
    )
    with pytest.raises(ConfigError, match=r"^kernels/tiny-task/kernel.yaml: ") as error:
        load_kernel_file(workspace, "tiny-task")
    assert len(str(error.value).splitlines()) == 1


def test_the_owner_of_the_environment_and_of_a_file(tmp_path):
    with pytest.raises(PodiumError, match=r"KAGGLE_USERNAME: 'x/y' is no name of a Kaggle user"):
        find_owner(None, {"KAGGLE_USERNAME": "x/y", "HOME": str(tmp_path)})
    write_lines(tmp_path / ".kaggle" / "kaggle.json", '{"username": "../x"}')
    with pytest.raises(PodiumError, match=r"kaggle.json: '../x' is no name of a Kaggle user"):
        find_owner(None, {"HOME": str(tmp_path)})
    assert find_owner("alice", {"HOME": str(tmp_path)}) == "alice"


EMPTY = {"slug": "w", "kind": "weights", "files": {}, "paths": {}}


# -- built kernels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("kernel", "check"), ("kernel", "rehearse"), ("push",), ("pull",), ("status",), ("submit", "--kernel")]
)
@pytest.mark.parametrize("name", ["../kernels/tiny-kernel", "../../../outside", "..", ".", "a/b"])
def test_a_kernel_is_named_by_one_word(workspace, command, name, capsys):
    make_kernel(workspace)
    with untouched(workspace.root.parent):
        assert said(workspace, capsys, *command, name).startswith(f"podium: kernel: '{name}' is no slug; needs letters")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"files": {"../../../../outside/secret.txt": SHA}}, "is no name"),
        ({"datasets": [EMPTY | {"slug": ".."}]}, "'..' is no slug"),
        ({"datasets": [EMPTY | {"files": {"../x": SHA}}]}, "does not stay in its folder"),
        ({"kernel": "x"}, "'x' is no address on Kaggle; needs owner/slug"),
        ({"kernel": "../x"}, "is no address"),
    ],
)
def test_a_manifest_that_names_other_files(workspace, changes, match):
    make_kernel(workspace, manifest=changes)
    with pytest.raises(PodiumError, match=rf"MANIFEST.json: .*{match}.*; build the kernel again"):
        load_built_kernel(workspace, "tiny-kernel")


# -- the command line ------------------------------------------------------------------------------------------------


def said(workspace, capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--root", str(workspace.root), *words])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", ["../x", "../../../outside", "..", "/etc", "a/b", ""])
def test_a_corpus_is_named_by_one_word(workspace, name, capsys):
    with untouched(workspace.root.parent):
        line = said(workspace, capsys, "search", "query", "words", "--corpus", name)
        assert line.startswith(f"podium: corpus: '{name}' is no name")


@pytest.mark.parametrize("slug", ["../x", "../../outside", "..", "/etc", "a/b"])
def test_a_download_goes_into_a_folder_of_data(workspace, slug, capsys):
    with untouched(workspace.root.parent):
        assert said(workspace, capsys, "data", "download", slug).startswith(f"podium: competition: '{slug}' is no name")


# -- podium's own modules --------------------------------------------------------------------------------------------


def own_folder():
    return Path(catalogue.__file__).parent


OWN = sorted(path.stem for path in own_folder().glob("*.py") if path.stem != "__init__")
KAGGLES = ["cassava_leaf_disease", "contradictory_my_dear_watson"]


@pytest.mark.parametrize("name", [name for name in OWN if name not in KAGGLES])
@pytest.mark.parametrize("force", [False, True])
def test_no_module_of_podiums_own_is_replaced(workspace, tmp_path, name, force):
    """No embedded competition; the data of such a slug may be there and good."""
    slug = name.replace("_", "-")
    write_lines(workspace.data_dir(slug) / "train.csv", "id,text,label", *(f"{i},a{i},{i % 2}" for i in range(40)))
    write_lines(workspace.data_dir(slug) / "test.csv", "id,text", "50,b")
    write_lines(workspace.data_dir(slug) / "sample_submission.csv", "id,label", "50,0")
    copies = tmp_path / "competitions"
    shutil.copytree(own_folder(), copies)
    with untouched(workspace.root, copies), pytest.raises(PodiumError, match=rf"{name}.py is podium's own and is not"):
        # Of a copy: on the code of before this would have replaced the module itself.
        new_competition(workspace, slug, force=force, competitions_dir=copies)


def test_a_competition_called_as_a_module_of_podiums_is_another_file(workspace, tmp_path):
    write_lines(workspace.data_dir("tables") / "train.csv", "id,text,label", *(f"{i},a{i},{i % 2}" for i in range(40)))
    write_lines(workspace.data_dir("tables") / "test.csv", "id,text", "50,b")
    write_lines(workspace.data_dir("tables") / "sample_submission.csv", "id,label", "50,0")
    assert competition_file("tables") == own_folder() / "tables.py"
    with untouched(own_folder().parent):
        path, _ = new_competition(workspace, "tables", competitions_dir=tmp_path)
    assert path == tmp_path / "tables.py"


def test_which_modules_are_podiums_own(tmp_path):
    assert [name for name in OWN if not is_own_module(competition_file(name))] == KAGGLES
    assert {name for name in competition_names() if load_competition(name).prepare is None} >= set(KAGGLES)
    assert not is_own_module(competition_file("spaceship_titanic"))
    write_lines(tmp_path / "mine.py", "COMPETITION = make(name='mine')")
    write_lines(tmp_path / "typed.py", "COMPETITION: Competition = Competition(name='typed')")
    write_lines(tmp_path / "broken.py", "COMPETITION = (")
    write_lines(tmp_path / "code.py", "def f(): ...")
    names = ("mine", "typed", "broken", "code")
    assert [is_own_module(tmp_path / f"{name}.py") for name in names] == [False, False, False, True]
