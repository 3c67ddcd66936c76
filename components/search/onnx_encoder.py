"""A sentence encoder on ONNX Runtime: a folder with `model.onnx`, `tokenizer.json` and `encoder.json`; no torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from components.files.atomic import read_json
from components.search.encoders import MODEL_FILE, RECORD_FILE
from components.search.token_batches import TokenBatches


class OnnxEncoder:
    """The encoder that `onnx_export.export_encoder` wrote."""

    def __init__(self, folder: Path, *, num_threads: int = 1) -> None:
        """Raises ValueError for a folder that holds no exported encoder."""
        record = read_json(folder / RECORD_FILE)
        self.name = str(record["name"])
        self.dimension = int(record["dimension"])
        self.fingerprint = str(record["fingerprint"])
        self._batches = TokenBatches(folder, max_length=int(record["max_length"]))
        self._session = _open_session(folder / MODEL_FILE, num_threads)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) of norm 1; all texts in one batch."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        input_ids, attention_mask = self._batches(texts)
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        return np.asarray(self._session.run(["vectors"], feeds)[0], np.float32)


def _open_session(file: Path, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # The arena keeps the largest batch's memory for good; threads that spin take a core from other users.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has a type per reason and exports none of them
        reason = str(error).strip().splitlines()
        raise ValueError(f"{file}: unreadable as an ONNX model ({reason[0] if reason else 'no reason'})") from error
