"""Two ways of pointing the real client at the stand-in: in this process, and for any process through a proxy."""

import os
import sys
import tempfile
from pathlib import Path

from kaggle_standin.server import KaggleStandIn

KEY = "secret-key"


def sign_in(monkeypatch, home: Path, *, user: str = "alice", key: str = KEY) -> None:
    """A home of the test's own, no KAGGLE_ variable of whoever runs it, and a key."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(home))  # where the client keeps the state of its uploads
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name, value in {
        "HOME": str(home),
        "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
        "KAGGLE_USERNAME": user,
        "KAGGLE_KEY": key,
    }.items():
        monkeypatch.setenv(name, value)


def connect(monkeypatch, server: KaggleStandIn) -> None:
    """Point the client imported in this process at the server; nothing else of it is touched."""
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.url)
    monkeypatch.setattr(KaggleApi, "args", ["--local"])
    monkeypatch.setattr(KaggleApi, "config", str(Path(os.environ["KAGGLE_CONFIG_DIR"]) / "kaggle.json"))


def proxy_environment(server: KaggleStandIn, home: Path, *, user: str = "alice", key: str = KEY) -> dict[str, str]:
    """What a process needs to take the server for Kaggle: its "localhost" is reached through a proxy, the server."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),
        "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
        "KAGGLE_USERNAME": user,
        "KAGGLE_KEY": key,
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": server.url,
        "NO_PROXY": "",
        "no_proxy": "",
        "OMP_NUM_THREADS": "1",
    }
