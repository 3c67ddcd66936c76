"""Secrets are found by value and by shape, and taken out without breaking what stands around them."""

import json
import subprocess

import pytest

from pipelines.redaction import REMOVED, cleaned, find_secrets, known_secrets, without_secrets
from pipelines.tracking.jsonl import open_jsonl_tracker, read_run

# Put together here, so that no scanner takes this file for a leak.
KAGGLE = "KGAT_" + "0123456789abcdef" * 2
KEY = "0123456789abcdef" * 2
PRIVATE = "-----BEGIN RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected", "kind"),
    [
        (f"token {KAGGLE} here", f"token {REMOVED} here", "a Kaggle token"),
        (f'{{"username": "alice", "key": "{KEY}"}}', f'{{"username": "alice", "key": "{REMOVED}"}}', "a Kaggle key"),
        (f"export KAGGLE_KEY={KEY}", f"export KAGGLE_KEY={REMOVED}", "a Kaggle key"),
        ("hf_" + "aB3" * 10, REMOVED, "a Hugging Face token"),
        ("ghp_" + "aB3" * 12, REMOVED, "a GitHub token"),
        ("sk-" + "aB3" * 8, REMOVED, "an sk- key"),
        ("AKIA" + "ABCD" * 4, REMOVED, "an AWS key"),
        ("http://bob:" + "hunter2@host/", f"http://bob:{REMOVED}@host/", "a password in an address"),
        ('API_KEY = "' + 'abcd1234' * 2 + '"', f'API_KEY = "{REMOVED}"', "a literal that is called a secret"),
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_shape(text, expected, kind):
    (secret,) = find_secrets(text, known={})
    assert secret.kind == kind
    assert without_secrets(text, known={}) == expected
    assert without_secrets(expected, known={}) == expected


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"submission_sha256": "a" * 64, "commit": "b" * 40}),
        "tokenizer = load_vocabulary('vocabulary/spiece.model')",
        'password = os.environ["PASSWORD"]',
        "sqlite:////home/alice/mlflow.db and http://127.0.0.1:5000/#/experiments/1",
    ],
)
def test_digests_paths_and_names_are_no_secrets(text):
    assert find_secrets(text, known={}) == []


def test_the_environment_and_credential_files_are_searched(tmp_path):
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    (folder / "kaggle.json").write_text('{"username": "alice", "key": "from-the-json"}')
    (folder / "access_token").write_text("from-the-file\n")
    token_file = tmp_path / "elsewhere"
    token_file.write_text("from-a-named-file")
    known = known_secrets(
        {
            "HOME": str(tmp_path),
            "WANDB_API_KEY": "from-a-variable",
            "KAGGLE_API_TOKEN": str(token_file),
            "KAGGLE_USERNAME": "alice-the-user",
            "SHORT_KEY": "abc",
        }
    )
    assert known == {
        "from-a-variable": "the value of WANDB_API_KEY",
        "from-the-json": f"what {folder / 'kaggle.json'} holds",
        "from-the-file": f"what {folder / 'access_token'} holds",
        "from-a-named-file": f"what {token_file} holds",
    }
    text = "from-a-variable, alice, from-the-json"
    assert [secret.line for secret in find_secrets("one\n" + text, known)] == [2, 2]
    assert without_secrets(text, known) == f"{REMOVED}, alice, {REMOVED}"
    assert cleaned({"a": ["from-the-file", 1, None]}, known) == {"a": [REMOVED, 1, None]}


def test_a_patch_stays_a_patch_when_a_key_is_taken_out(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    patch = f"""diff --git a/key.py b/key.py
new file mode 100644
--- /dev/null
+++ b/key.py
@@ -0,0 +1,5 @@
+KEY = '''
+{PRIVATE}
+MIIEowIBAAKCAQEA
+{PRIVATE.replace("BEGIN", "END")}
+'''
"""
    clean = without_secrets(patch, known={})
    assert "MIIE" not in clean
    subprocess.run(["git", "-C", str(tmp_path), "apply", "-"], input=clean.encode(), check=True)
    assert (tmp_path / "key.py").read_text() == f"KEY = '''\n{REMOVED}\n{REMOVED}\n{REMOVED}\n'''\n"


TWO_LINES = "first-line-of-it\nsecond-line-of-it"
EACH_A_WORD = "aaaa1111bbbb2222\ncccc3333dddd4444\n"


@pytest.mark.parametrize("sign", ["+", "-", " "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_secret_of_two_lines_is_found_in_a_patch(sign, line_end):
    known = {TWO_LINES: "the value of MULTI_KEY"}
    patch = f'{sign}KEY = """{TWO_LINES}"""{line_end} x'.replace("\n", f"{line_end}{sign}", 1)
    (secret,) = find_secrets(patch, known)
    assert (secret.line, secret.kind) == (1, "the value of MULTI_KEY")
    assert without_secrets(patch, known).splitlines() == [f'{sign}KEY = """{REMOVED}', f'{sign}{REMOVED}"""', " x"]


@pytest.mark.parametrize(
    "text",
    [
        TWO_LINES,
        TWO_LINES + "\n",
        "+k: |\n+    first-line-of-it\n+    second-line-of-it\n+end",
        "KEY = 'first-line-of-it\\nsecond-line-of-it'",
        json.dumps({"source": [f'KEY = """{TWO_LINES}"""']}),
        json.dumps(json.dumps(TWO_LINES)),
        json.dumps(TWO_LINES.splitlines(keepends=True), indent=1),
        '+("first-line-of-it\\n"\n+ "second-line-of-it")',
    ],
)
def test_a_secret_of_two_lines_is_found_however_it_is_spelled(text):
    clean = without_secrets(text, {TWO_LINES + "\n": "it"})
    assert "line-of-it" not in clean
    assert REMOVED in clean
    assert clean.count("\n") == text.count("\n")


def test_lines_of_a_secret_that_a_patch_takes_apart():
    known = {EACH_A_WORD: "it"}
    patch = "-aaaa1111bbbb2222\n+x = 1\n cccc3333dddd4444\n"
    assert without_secrets(patch, known) == f"-{REMOVED}\n+x = 1\n {REMOVED}\n"
    # A line that may be a word of any text is no secret alone.
    assert find_secrets("first-line-of-it", {TWO_LINES: "it"}) == []
    assert find_secrets("a, b and a-b", {"a\n\n\n\n\n\nb": "it"}) == []


def test_a_patch_with_a_secret_in_lines_that_stay_still_applies(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    patch = f"""diff --git a/key.py b/key.py
new file mode 100644
--- /dev/null
+++ b/key.py
@@ -0,0 +1,4 @@
+KEY = '''
+{TWO_LINES.splitlines()[0]}
+{TWO_LINES.splitlines()[1]}
+'''
"""
    clean = without_secrets(patch, {TWO_LINES: "it"})
    subprocess.run(["git", "-C", str(tmp_path), "apply", "-"], input=clean.encode(), check=True)
    assert (tmp_path / "key.py").read_text() == f"KEY = '''\n{REMOVED}\n{REMOVED}\n'''\n"


def test_no_secret_reaches_a_tracker(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "planted-in-the-environment")
    tracker = open_jsonl_tracker(tmp_path, run_name="r", competition="c")
    tracker.log_params({"note": f"x {KAGGLE}", "paths": ["planted-in-the-environment"], "lr": 0.1})
    tracker.log_tags({"note": "planted-in-the-environment"})
    tracker.log_text(f"a: 1\ntoken: {KAGGLE}\n", "config.yaml")
    tracker.finish("FINISHED")
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"planted" not in content
    assert KAGGLE.encode() not in content
    run = read_run(tmp_path / "tracking")
    assert run.params == {"note": f"x {REMOVED}", "paths": [REMOVED], "lr": 0.1}
