"""What parties must agree on to the byte: the schema's hash, the vector that is sent, a record's id.

The vector is worked out by hand: C = 1.1, 16 steps, and the lattice rows are D_2 -> (-3, 9), D_4 -> (15, -4),
D_6 -> (-11, -11), D_7 -> (13, -7); row 3 is missing, so D_3 and D_5 do not exist.
"""

import scarcity.engine
from scarcity.engine import EvidenceRecord, OnlineDiscoveryEngine, Schema, Variable

SCHEMA = Schema(
    [Variable("gdp", "numeric", "%", 2.0, 1.5, (-20.0, 20.0)), Variable("infl", scale=3.0)],
    lags=1,
    horizon=2,
    lattice=16,
)
ROWS = [[1, 2], [2, -1], [0.5, 4], [None, 1], [3, 3], [-2, 2], [1, 0], [4, -3]]


def engine():
    made = OnlineDiscoveryEngine(SCHEMA)
    made.process_rows(ROWS)
    return made


def test_the_hash_of_a_schema_is_pinned():
    assert SCHEMA.hash.hex() == "aa7ebe5db44547566b55fd66a3a67cfd4a3114caa87187ca8a4c6360b348b523"


def test_the_vector_that_is_sent_is_the_one_worked_out_by_hand():
    increment = engine().increment()
    counts = [4, 1]
    diagonal = [9 + 225 + 121 + 169, 81 + 16 + 121 + 49]
    off_diagonal = [-27 - 60 + 121 - 91]
    lag_one = [13 * -11, 13 * -11, -7 * -11, -7 * -11]
    assert increment.vector.tolist() == counts + diagonal + off_diagonal + lag_one
    assert (increment.weight, increment.rows) == (4, (0, 8))


def test_the_id_of_a_record_is_pinned():
    record = EvidenceRecord("global", engine().differenced(), "round 1")
    assert record.id.hex() == "5d3fc9b58ab6fe035c3be83490ee908759aa8160f7777ce8e89ae054ac85b458"


def test_the_exported_names_are_pinned():
    values = "EngineConfig EvidenceRecord Explanation HypergraphStore Increment Moments OnlineDiscoveryEngine Relation"
    fits = "Schema VarFit Variable VectorLayout discover fit_var record_layout relations_of"
    assert scarcity.engine.__all__ == [*values.split(), *fits.split()]
    assert all(hasattr(scarcity.engine, name) for name in scarcity.engine.__all__)
