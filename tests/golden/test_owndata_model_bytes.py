"""The model file's bytes are a format: a change of them needs another version."""

from __future__ import annotations

import hashlib

import numpy as np

from scarcity.engine import Moments, Schema, Variable
from scarcity.node.data.model_file import ModelFile, Provenance, encode_model


def test_the_bytes_of_a_model_are_these() -> None:
    schema = Schema(
        [Variable("a", unit="m", scale=2.0, bounds=(0, 9)), Variable("b", kind="binary")], lags=1, horizon=2
    )
    moments = Moments(schema, "centred", np.arange(15) / 4, rows=40, parties=3, noise_std=0.25)
    made = Provenance("scarcity 0.1.0", "note", "local", "record", "average", 1.0, 1e-6, 3, 1, 2, reproducible=False)
    data = encode_model(ModelFile(moments, made))
    assert data.startswith(b"scarcity model 1\nJ\x01\x00\x00\x93\x01\xa5model\x97\xd9\xea{")
    assert (len(data), hashlib.sha256(data).hexdigest()) == (
        503,
        "a90e479a6f8faa802a094ceedf80bf4c1b7957df36d14a0ce6b093de1b0f5953",
    )
