"""The packaged MiniLM as the app serves it: exported, equal to torch, and found by meaning alone."""

import numpy as np

from pipelines.search.encoders import open_sentence_encoder
from pipelines.workspace import Workspace

TEXTS = [
    "The central bank lowers its rates",
    "Borrowing becomes cheaper",
    "A striker breaks his leg",
    "",
    "word " * 400,
]


def test_the_packaged_encoder_is_exported_once_and_equals_torch(tmp_path):
    workspace = Workspace(tmp_path)
    served = open_sentence_encoder(workspace, "minilm")
    model = workspace.encoders / "minilm/model.onnx"
    written = model.stat().st_mtime_ns
    reference = open_sentence_encoder(workspace, "minilm", runtime="torch")
    assert served.fingerprint == reference.fingerprint
    vectors = served.encode(TEXTS)
    np.testing.assert_allclose(vectors, reference.encode(TEXTS), atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    again = open_sentence_encoder(workspace, "minilm", fingerprint=served.fingerprint)
    np.testing.assert_array_equal(again.encode(TEXTS), vectors)
    assert model.stat().st_mtime_ns == written
