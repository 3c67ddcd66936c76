"""The scripts of a winner's package: they read SETTINGS.json and record.json, and call the packed source's commands.

The source may be of any commit: its command line is what all of them have in common.
"""

PACKAGE = '''"""What the entry points share: the settings, the record of the submission, and the source that made it."""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
RECORD = json.loads((ROOT / "record.json").read_text(encoding="utf-8"))
SLUG = RECORD["kaggle_slug"]


def folder(name):
    """A folder of SETTINGS.json; relative ones lie in this package."""
    path = ROOT / json.loads((ROOT / "SETTINGS.json").read_text(encoding="utf-8"))[name]
    path.mkdir(parents=True, exist_ok=True)
    return path


def podium(root, *words):
    """Run a command of source/, whatever else is installed; `root` is the checkout it works in."""
    source = str(ROOT / "source")
    sys.path.insert(0, source)
    import components
    import pipelines

    sys.path.remove(source)  # its folder kernels/ is no package
    for package in (components, pipelines):
        assert package.__file__.startswith(source), package.__file__
    from pipelines.cli import main

    main(["--root", str(root), *map(str, words)])


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
'''

PREPARE_DATA = '''"""Check the files in RAW_DATA_DIR against the record and copy them to CLEAN_DATA_DIR."""

import shutil
import sys
import tempfile
from pathlib import Path

from package import RECORD, SLUG, folder, podium, sha256


def main():
    raw, clean = folder("RAW_DATA_DIR"), folder("CLEAN_DATA_DIR")
    missing = [name for name in RECORD["data_sha256"] if not (raw / name).exists()]
    if missing and RECORD["host"] == "local":
        write_embedded(raw)
    elif missing:
        sys.exit(f"{raw / missing[0]}: missing; kaggle competitions download -c {SLUG}, unzip it into {raw}")
    files = {name: digest for name, digest in RECORD["data_sha256"].items() if not name.endswith("/")}
    for name, digest in files.items():
        if sha256(raw / name) != digest:
            print(f"{raw / name}: not the file that the submission was made from (sha256 {digest})")
        shutil.copyfile(raw / name, clean / name)
    for path in raw.iterdir():
        if path.is_dir():  # images
            shutil.copytree(path, clean / path.name, dirs_exist_ok=True)
    print(f"{clean}: {len(files)} files")


def write_embedded(raw):
    """Data that travel in installed packages are written by the source itself."""
    with tempfile.TemporaryDirectory(prefix="podium-data-") as name:
        podium(name, "data", "prepare", RECORD["competition"])
        shutil.copytree(Path(name) / "data" / SLUG, raw, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
'''

TRAIN = '''"""Train as the submission's run was trained, from CLEAN_DATA_DIR into a new folder of MODEL_DIR."""

import os
import shutil
import tempfile
from pathlib import Path

from package import RECORD, ROOT, SLUG, folder, podium, sha256


def main():
    words = RECORD["command"][RECORD["command"].index("train") :]
    for name in ("SMOKE", "OVERFIT"):
        os.environ.pop(name, None)
    if RECORD.get("mode"):
        os.environ[RECORD["mode"].upper()] = "1"
    with tempfile.TemporaryDirectory(prefix="podium-train-") as name:
        root = Path(name)
        lay_out_data(root / "data")
        (root / "experiments").symlink_to(ROOT / "source" / "experiments")
        podium(root, *words, "tracking.name=jsonl")
        (run,) = (record.parent for record in root.glob("runs/*/*/run.json"))
        target = folder("MODEL_DIR") / run.name
        shutil.copytree(run, target)
    print(f"{target}: trained; predict with it: python predict.py {target.name}")


def lay_out_data(data):
    """The files of CLEAN_DATA_DIR where training looks, marked as prepared: none is written anew from a package."""
    (data / SLUG).mkdir(parents=True)
    for path in folder("CLEAN_DATA_DIR").iterdir():
        (data / SLUG / path.name).symlink_to(path)
    (data / "local_host" / SLUG).mkdir(parents=True)
    (data / "local_host" / SLUG / "none").touch()
    for place in (data / SLUG, data / "local_host" / SLUG):
        lines = [f"{sha256(path)}  {path.name}\\n" for path in place.iterdir() if path.is_file()]
        (place / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
'''

PREDICT = '''"""Predict the rows of CLEAN_DATA_DIR with the submitted run of MODEL_DIR, or with a named one."""

import sys

from package import RECORD, ROOT, folder, podium, sha256


def main():
    run = sys.argv[1] if len(sys.argv) > 1 else RECORD["run"]
    output = folder("SUBMISSION_DIR") / "submission.csv"
    clean = folder("CLEAN_DATA_DIR")
    podium(ROOT, "predict", "--run", folder("MODEL_DIR") / run, "--data-dir", clean, "--output", output)
    is_equal = sha256(output) == RECORD["submission_sha256"]
    print(f"{output}: {'the submitted file, byte for byte' if is_equal else 'other bytes than the submitted file'}")


if __name__ == "__main__":
    main()
'''

ENTRY_POINTS = {"package.py": PACKAGE, "prepare_data.py": PREPARE_DATA, "train.py": TRAIN, "predict.py": PREDICT}
SETTINGS = {
    "RAW_DATA_DIR": "data/raw",
    "CLEAN_DATA_DIR": "data/clean",
    "MODEL_DIR": "model",
    "SUBMISSION_DIR": "submission",
}
