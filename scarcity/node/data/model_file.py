r"""The file of a model that a federation made: what `scarcity swarm --model` writes and `scarcity predict` reads.

    "scarcity model 1\n" | canonical bytes of a `ModelFile` (scarcity.federation.codec) | BLAKE2b-256 of all before it

The codec's bytes are u32 header length | msgpack [1, "model", [field, ..]] | float64 of the vector, little-endian.
They are strict and bounded: other types, other lengths, trailing bytes or a second form of the same values are refused,
and nothing in a file is ever executed. The hash finds damage; it is no signature: whoever
can change the file can change the hash.

A model is a sum over all parties under the round's privacy. Keeping and sharing it costs no further budget, unless
`mode` is "none": such a sum protects nobody.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from scarcity.engine import Moments, Schema, VarFit, fit_var
from scarcity.engine.vector import FORMS, Form
from scarcity.errors import CodecError, ConfigError, LocalError, SchemaMismatchError
from scarcity.federation.codec import Codec, CodecLimits
from scarcity.node.files import write_whole

VERSION: Final = 1
MAX_FILE_BYTES: Final = 64 << 20  # 256 variables with 64 lags would be 34 MB of float64
_MAX_SCHEMA_BYTES: Final = 1 << 20  # 256 variables with names and units of 200 characters
MAX_TEXT: Final = 200
_MAGIC: Final = b"scarcity model %d\n"
_MAGIC_PATTERN: Final = re.compile(rb"scarcity model (\d{1,9})\n")
_DIGEST_BYTES: Final = 32


@attrs.frozen
class Provenance:
    """Where a model came from, for people; nothing is computed from it.

    Attributes:
        made_by: software and version.
        note: what data, in one line.
        mode: trust mode.
        unit: of privacy.
        rule: of Layer 1.
        epsilon: budget of each client; 0 in mode none.
        delta: budget of each client; 0 in mode none.
        clients: how many took part.
        baskets: how many.
        rounds: how many models are added up in it.
        reproducible: its noise follows from a seed and protects nobody.
    """

    made_by: str
    note: str
    mode: str
    unit: str
    rule: str
    epsilon: float
    delta: float
    clients: int
    baskets: int
    rounds: int
    reproducible: bool

    def __attrs_post_init__(self) -> None:
        for name in ("made_by", "note", "mode", "unit", "rule"):
            if len(getattr(self, name)) > MAX_TEXT:
                raise ConfigError(f"provenance: {name} is longer than {MAX_TEXT} characters")
        for name in ("epsilon", "delta", "clients", "baskets", "rounds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"provenance: {name} is {getattr(self, name)}")


@attrs.frozen
class _Body:
    """The fields as they stand in the file; `schema` is canonical JSON."""

    schema: str
    form: str
    vector: NDArray[np.float64]
    rows: int
    parties: int
    noise_std: float
    provenance: Provenance


_CODEC: Final[Codec[_Body]] = Codec(
    {"model": _Body},
    version=VERSION,
    limits=CodecLimits(message_bytes=MAX_FILE_BYTES, header_bytes=2 << 20, items=64, text_bytes=_MAX_SCHEMA_BYTES),
)


@attrs.frozen
class ModelFile:
    """A global model: its statistics and where they came from.

    Attributes:
        moments: schema, form, sums, counts and noise.
        provenance: for people.
    """

    moments: Moments
    provenance: Provenance

    @property
    def schema(self) -> Schema:
        """The schema that the model was made under."""
        return self.moments.schema

    def fit(self) -> VarFit:
        """Return the vector autoregression that the model's statistics give.

        Raises:
            InsufficientInputs: the model has not more rows than parameters.
            InvalidUpdate: numbers that no rows have.
        """
        return fit_var(self.moments)

    def require_schema(self, schema: Schema, path: Path) -> None:
        """Refuse a schema that is not the model's.

        Args:
            schema: the user's.
            path: of the model, for the message.

        Raises:
            SchemaMismatchError: they differ; the message says where.
        """
        if schema != self.schema:
            raise SchemaMismatchError(
                f"{path}: the model was made under another schema ({_difference(self.schema, schema)}); "
                "use the schema it was made under, or none: the file holds its own"
            )


def _difference(ours: Schema, theirs: Schema) -> str:
    """Return the first field in which two schemas differ."""
    if ours.names != theirs.names:
        return f"its variables are {', '.join(ours.names)}, not {', '.join(theirs.names)}"
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        for name, value in one.to_dict().items():
            if (given := other.to_dict()[name]) != value:
                return f"its {name} of {one.name!r} is {value}, not {given}"
    for name, value in ours.to_dict().items():
        if (given := theirs.to_dict()[name]) != value:
            return f"its {name} is {value}, not {given}"
    return "they are the same"


def encode_model(model: ModelFile) -> bytes:
    """Return the canonical bytes: equal models give equal bytes."""
    moments = model.moments
    body = _Body(
        schema=_schema_text(moments.schema),
        form=moments.form,
        vector=np.asarray(moments.vector, dtype="<f8"),
        rows=moments.rows,
        parties=moments.parties,
        noise_std=moments.noise_std,
        provenance=model.provenance,
    )
    data = _MAGIC % VERSION + _CODEC.encode(body)
    return data + _digest(data)


def decode_model(data: bytes) -> ModelFile:
    """Return the model of canonical bytes.

    Raises:
        CodecError: anything else; no other error escapes, whatever the bytes.
    """
    if len(data) > MAX_FILE_BYTES:
        raise CodecError(f"a model has at most {MAX_FILE_BYTES} bytes, this has more")
    magic = _MAGIC_PATTERN.match(data)
    if magic is None:
        raise CodecError("not a model; `scarcity swarm --model FILE` writes one, and so does a node, in its data_dir")
    if int(magic[1]) != VERSION or magic[0] != _MAGIC % VERSION:
        raise CodecError(
            f"a model of version {int(magic[1])}, this scarcity reads version {VERSION}: make it again, or use the "
            "scarcity that made it"
        )
    whole, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _digest(whole) != digest:
        raise CodecError("a damaged model (its hash does not fit): copy or make it again")
    body = _CODEC.decode(whole[len(magic[0]) :])
    try:
        schema = Schema.from_dict(json.loads(body.schema))
        if _schema_text(schema) != body.schema:
            raise CodecError("a model whose schema is not in its canonical form")
        moments = Moments(schema, _form(body.form), body.vector, body.rows, body.parties, body.noise_std)
    except (LocalError, ValueError, TypeError, RecursionError) as error:
        raise CodecError(f"a model that cannot be: {error}") from None
    return ModelFile(moments, body.provenance)


def _form(text: str) -> Form:
    for form in FORMS:
        if form == text:
            return form
    raise CodecError(f"a model of the unknown form {text[:40]!r}")


def _schema_text(schema: Schema) -> str:
    return json.dumps(schema.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES, person=b"scarcity-model").digest()


def read_model(path: Path) -> ModelFile:
    """Return the model of a file.

    Raises:
        ConfigError: the file cannot be read, or is no model of this version.
    """
    try:
        with path.open("rb") as file:
            return decode_model(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"model {path}: {error.strerror}") from None
    except CodecError as error:
        raise ConfigError(f"model {path}: {error}") from None


def write_model(model: ModelFile, path: Path, option: str) -> None:
    """Write a model, whole or not at all.

    Raises:
        ConfigError: it cannot be written; what was there before is unchanged.
    """
    write_whole(path, encode_model(model), option)
