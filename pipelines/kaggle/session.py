"""A signed-in session with Kaggle through its official client, with nothing printed and no credential in any message.

The client is imported inside the constructor only: importing it authenticates, prints a help text and makes a folder
in the user's home. Credentials are looked for where the client looks: KAGGLE_API_TOKEN, ~/.kaggle/access_token,
KAGGLE_USERNAME with KAGGLE_KEY, kaggle.json, and what `kaggle auth login` left.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from requests import RequestException, Session
from requests.adapters import HTTPAdapter

from pipelines.errors import PodiumError
from pipelines.kaggle.errors import TOKEN_CURE, Subject, explain
from pipelines.kaggle.retries import Retries

T = TypeVar("T")
# Seconds until a connection stands, and between two bytes of an answer; the client itself would wait for ever.
TIMEOUT = (20.0, 180.0)


class ClientError(PodiumError):
    """The client itself refused: a folder, a name, or an upload that it gave up."""


class KaggleSession:
    """Raises `PodiumError` without credentials, or when Kaggle refuses them or cannot be reached."""

    def __init__(self, retries: Retries | None = None) -> None:
        self.retries = retries or Retries()
        with quiet(), _no_new_folder():
            try:
                from kaggle.api.kaggle_api_extended import KaggleApi
            except ImportError as error:
                raise PodiumError(f"kaggle: the client cannot be imported ({error}); run: make setup") from None
            self.api: Any = KaggleApi()
            _bound_waiting(self.api)
            try:
                self.retries.read(self.api.authenticate)
            except SystemExit:
                raise PodiumError(_missing_credentials()) from None
            except RequestException as error:
                raise explain(error, Subject("account", "kaggle")) from None

    @property
    def username(self) -> str:
        """Whose credentials these are."""
        return str(self.api.config_values.get(self.api.CONFIG_NAME_USER) or "")

    def read(self, subject: Subject, function: Callable[[], T], *, is_progress_shown: bool = False) -> T:
        """Call what changes nothing, again where Kaggle stumbles. Raises `KaggleError` about `subject`."""
        with self._talking(subject, is_progress_shown=is_progress_shown):
            return self.retries.read(function)

    def change(self, subject: Subject, function: Callable[[], T], arrived: Callable[[], T | None]) -> T:
        """Call what changes something, once in effect: see `Retries.change`."""
        with self._talking(subject):
            return self.retries.change(function, arrived)

    def send(self, method: Callable[[Any], Callable[[Any], T]], request: object) -> T:
        """One remote call: `method` picks it from the client, `request` is its body."""
        with self.api.build_kaggle_client() as kaggle:
            return method(kaggle)(request)

    @contextlib.contextmanager
    def http(self) -> Iterator[tuple[Session, str]]:
        """The signed-in HTTP session and the address of the API, for what the client has no method for."""
        with self.api.build_kaggle_client() as kaggle:
            address = kaggle.http_client()._get_request_url("", "").rstrip("/")
            yield kaggle.http_client()._session, address

    @contextlib.contextmanager
    def _talking(self, subject: Subject, *, is_progress_shown: bool = False) -> Iterator[None]:
        try:
            with quiet(is_progress_shown=is_progress_shown):
                yield
        except RequestException as error:
            raise explain(error, subject) from None
        except ValueError as error:
            # The client's own checks of a folder or a name.
            raise ClientError(f"{subject.name}: {' '.join(str(error).split())}") from None


class _ImpatientAdapter(HTTPAdapter):
    def send(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (requests' own signature)
        options["timeout"] = options.get("timeout") or TIMEOUT
        return super().send(*arguments, **options)


def _bound_waiting(api: Any) -> None:  # noqa: ANN401 (a class of the client, which is not imported here)
    """Give every call of the client a timeout: a connection that dies without a word would stop a night's waiting."""
    build = api.build_kaggle_client

    @contextlib.contextmanager
    def build_impatient_client() -> Iterator[Any]:
        with build() as kaggle:
            for scheme in ("http://", "https://"):
                kaggle.http_client()._session.mount(scheme, _ImpatientAdapter())
            yield kaggle

    api.build_kaggle_client = build_impatient_client


def _missing_credentials() -> str:
    """Names where a token was found, never the token."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    token, source = get_access_token_from_env()
    if token:
        where = "KAGGLE_API_TOKEN" if source == "KAGGLE_API_TOKEN" else "~/.kaggle/access_token"
        return f"kaggle: the token in {where} is not valid (expired or revoked?); {TOKEN_CURE}"
    return f"kaggle: no credentials found; {TOKEN_CURE}"


@contextlib.contextmanager
def quiet(*, is_progress_shown: bool = False) -> Iterator[None]:
    """The client prints help, warnings and errors; whatever matters of it is raised. Its progress bar is on stderr."""
    hidden = io.StringIO()
    errors = contextlib.nullcontext() if is_progress_shown else contextlib.redirect_stderr(hidden)
    with contextlib.redirect_stdout(hidden), errors:
        yield


def is_terminal() -> bool:
    """Whether anybody would see a progress bar."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def _no_new_folder() -> Iterator[None]:
    """Importing the client makes its configuration folder; one that was not there and stays empty goes again."""
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folders = [Path.home() / ".kaggle", config_home / "kaggle"]
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(os.environ["KAGGLE_CONFIG_DIR"]))
    absent = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in absent:
            with contextlib.suppress(OSError):
                folder.rmdir()
