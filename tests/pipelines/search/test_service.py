"""The encoder behind HTTP: the same vectors bit for bit, and the same refusals."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import requests
import uvicorn
from search_fakes import ARTICLES, SIMPLIFIED, HashEncoder

from components.search.index import build_index, open_index
from components.search.searching import search
from pipelines.errors import PodiumError
from pipelines.search.remote import MAX_TEXTS, RemoteEncoder
from pipelines.search.service import build_service


@contextmanager
def serving(encoder):
    """The real service on a free port of this machine."""
    config = uvicorn.Config(build_service(encoder), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_vectors_and_results_are_those_of_the_encoder_itself(tmp_path):
    encoder = HashEncoder()
    options = {"corpus": "tiny", "simplified": SIMPLIFIED, "dense_weight": 0.3}
    build_index(tmp_path, ARTICLES, encoder, **options)
    with serving(encoder) as url:
        remote = RemoteEncoder(f"{url}/")
        assert (remote.name, remote.dimension, remote.fingerprint) == ("hash0", 32, encoder.fingerprint)
        texts = [f"text {number} 经济" for number in range(MAX_TEXTS + 5)]
        np.testing.assert_array_equal(remote.encode(texts), encoder.encode(texts))
        assert remote.encode([]).shape == (0, 32)
        index = open_index(tmp_path, encoder=remote)
        assert search(index, remote, "interest rates") == search(index, encoder, "interest rates")
        with pytest.raises(ValueError, match="made with the encoder hash0"):
            open_index(tmp_path, encoder=HashEncoder(1))
    with pytest.raises(PodiumError, match="does not answer"):
        remote.encode(["gone"])


def test_what_is_no_list_of_texts_is_refused():
    with serving(HashEncoder()) as url:
        for body in ({}, {"texts": []}, {"texts": "one"}, {"texts": [1]}, {"texts": ["x" * 20_001]}):
            assert requests.post(f"{url}/encode", json=body, timeout=5).status_code == 422
        assert requests.get(f"{url}/docs", timeout=5).status_code == 404


def test_an_address_without_a_service_says_what_to_run():
    with pytest.raises(PodiumError, match=r"http://127\.0\.0\.1:9: no encoder answers .* podium search serve"):
        RemoteEncoder("http://127.0.0.1:9")
