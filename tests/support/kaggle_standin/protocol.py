"""What passes between a client and the stand-in, and what can go wrong on purpose."""

from dataclasses import dataclass


class Refusal(Exception):
    """An error as Kaggle words it: a status and a message in a JSON body. `http_status` 200 is how some arrive."""

    def __init__(self, status: int, message: str, http_status: int | None = None, *, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.http_status = http_status or status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


@dataclass(frozen=True)
class Cut:
    """The connection ends without an answer, before anything was done or after, at once or after a silence."""

    is_done: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Reply:
    """This body under status 200, with nothing done."""

    body: dict


@dataclass(frozen=True)
class Extra:
    """Fields laid over the true answer."""

    body: dict


@dataclass(frozen=True)
class Stop:
    """An upload that ends after so many bytes: the connection is cut, or status 503 comes back."""

    num_bytes: int
    status: int | None = None


@dataclass(frozen=True)
class Spoil:
    """A download that breaks off after half of its bytes ("short"), or whose first byte is another ("altered")."""

    how: str


@dataclass(frozen=True)
class Call:
    """One request: the method's name, its body, who is signed in, and under which address the server is known."""

    method: str
    body: dict
    user: str
    base: str
