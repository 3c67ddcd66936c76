"""A sentence encoder behind a service (`encoder_service`), in the encoders' own protocol."""

from collections.abc import Sequence

import numpy as np
import requests
from numpy.typing import NDArray

from pipelines.errors import PodiumError

MAX_TEXTS, MAX_CHARACTERS = 256, 20_000
TIMEOUT_SECONDS = 30.0


class RemoteEncoder:
    """The encoder behind a service; as good as the encoder itself, and refused by the same indexes."""

    def __init__(self, url: str) -> None:
        """Raises `PodiumError` where no encoder's service answers."""
        self.url = url.rstrip("/")
        try:
            reply = requests.get(f"{self.url}/encoder", timeout=TIMEOUT_SECONDS)
            reply.raise_for_status()
            said = reply.json()
            self.name, self.fingerprint = str(said["name"]), str(said["fingerprint"])
            self.dimension = int(said["dimension"])
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            raise PodiumError(
                f"{self.url}: no encoder answers ({_reason(error)}): podium search serve ENCODER"
            ) from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D). Raises `PodiumError` where the service has gone."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        parts = [self._request(texts[start : start + MAX_TEXTS]) for start in range(0, len(texts), MAX_TEXTS)]
        return np.concatenate(parts)

    def _request(self, texts: Sequence[str]) -> NDArray[np.float32]:
        body = {"texts": [text[:MAX_CHARACTERS] for text in texts]}
        try:
            reply = requests.post(f"{self.url}/encode", json=body, timeout=TIMEOUT_SECONDS)
            reply.raise_for_status()
        except requests.RequestException as error:
            raise PodiumError(f"{self.url}: the encoder's service does not answer ({_reason(error)})") from error
        return np.frombuffer(reply.content, "<f4").reshape(len(texts), self.dimension).astype(np.float32)


def _reason(error: Exception) -> str:
    return type(error).__name__
