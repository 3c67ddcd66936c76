"""A sentence encoder over HTTP: one process holds the model, any number of apps ask it.

    GET  /encoder   {"name", "dimension", "fingerprint"}
    POST /encode    {"texts": [...]}  ->  the vectors as float32, little-endian, row by row

Vectors travel as bytes, not as decimal text, so that they arrive bit for bit. Nobody is asked for a password: bind
another address than loopback only where a proxy in front does that.
"""

from typing import Annotated

from fastapi import FastAPI, Response
from pydantic import BaseModel, Field, StringConstraints

from components.search.encoders import SentenceEncoder
from pipelines.search.remote import MAX_CHARACTERS, MAX_TEXTS


class Texts(BaseModel):
    """What is to be encoded."""

    texts: Annotated[
        list[Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]], Field(min_length=1, max_length=MAX_TEXTS)
    ]


def build_service(encoder: SentenceEncoder) -> FastAPI:
    """The service of one encoder; requests run in threads, which encoders allow."""
    service = FastAPI(title="podium encoder", docs_url=None, redoc_url=None, openapi_url=None)

    @service.get("/encoder")
    def describe() -> dict[str, str | int]:
        return {"name": encoder.name, "dimension": encoder.dimension, "fingerprint": encoder.fingerprint}

    @service.post("/encode")
    def encode(request: Texts) -> Response:
        vectors = encoder.encode(request.texts)
        return Response(vectors.astype("<f4").tobytes(), media_type="application/octet-stream")

    return service
