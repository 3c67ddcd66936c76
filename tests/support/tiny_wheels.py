"""A package index in a folder, of wheels that hold one function, and pip told to look nowhere else."""

import base64
import hashlib
import zipfile


def make_wheel(folder, name, version, *, needs=(), text="def greet():\n    return 'hello'\n"):
    """A pure wheel as pip wants it."""
    files = {
        f"{name}.py": text,
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {
        path: base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        for path, content in files.items()
    }
    files[f"{name}-{version}.dist-info/RECORD"] = "".join(
        f"{path},sha256={digest[path]},{len(files[path])}\n" for path in digest
    )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)


def make_index(folder, monkeypatch):
    """tinytool 1.1 and 1.2 (which needs tinybase and tinyextra), tinybase 1.0 and 2.0, tinyextra 3.0."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    make_wheel(folder, "tinytool", "1.2", needs=("tinybase>=1", "tinyextra"))
    make_wheel(folder, "tinytool", "1.1")
    for version in ("1.0", "2.0"):
        make_wheel(folder, "tinybase", version)
    make_wheel(folder, "tinyextra", "3.0")
