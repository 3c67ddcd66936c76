"""Secrets are found by value and by shape, and taken out without breaking what stands around them."""

import json
import subprocess

import pytest

from pipelines.adapters.jsonl_tracker import open_jsonl_tracker, read_run
from pipelines.credentials import REMOVED, cleaned, find_secrets, known_secrets, without_secrets

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
