"""The hash chain and its bytes."""

import attrs
import pytest

from scarcity.errors import LedgerCorrupt, UnsupportedEvent
from scarcity.privacy import GaussianEvent, LedgerRecord, PrivacyFilter, PrivacyParams, PrivacyUnit, RecordState
from scarcity.privacy.ledger import _digest, decode_ledger, decode_record, encode_record, seal, verify_chain


def _chain() -> list[LedgerRecord]:
    accounts = PrivacyFilter(PrivacyParams(10.0, 1e-5), unit=PrivacyUnit.RECORD, ledger_id="k\u00e9y")
    records = []
    for index, rows in enumerate([(0, 5), None, (5, 9)]):
        reservation, record = accounts.reserve(GaussianEvent(2.0 + index / 3, 1.0), f"r{index}", "round 1", rows)
        records.append(record)
        if index != 1:
            records.append((accounts.commit if index else accounts.void)(reservation))
    return records


def test_decoding_gives_back_the_record() -> None:
    records = _chain()
    blobs = [encode_record(record) for record in records]
    assert decode_ledger(blobs) == records
    assert [encode_record(decode_record(blob)) for blob in blobs] == blobs


def test_an_empty_ledger_is_whole() -> None:
    assert decode_ledger([]) == []


def test_every_prefix_of_the_last_record_is_torn_and_dropped() -> None:
    records = _chain()
    blobs = [encode_record(record) for record in records]
    for length in range(len(blobs[-1])):
        assert decode_ledger([*blobs[:-1], blobs[-1][:length]]) == records[:-1]


def test_every_prefix_of_an_earlier_record_is_corrupt() -> None:
    blobs = [encode_record(record) for record in _chain()]
    for length in range(len(blobs[1])):
        with pytest.raises(LedgerCorrupt):
            decode_ledger([blobs[0], blobs[1][:length], *blobs[2:]])


@pytest.mark.parametrize("position", range(5))
def test_a_flipped_bit_anywhere_is_corrupt_in_the_last_record_too(position: int) -> None:
    blobs = [encode_record(record) for record in _chain()]
    for at in range(len(blobs[position])):
        flipped = bytearray(blobs[position])
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises(LedgerCorrupt):
            decode_ledger([*blobs[:position], bytes(flipped), *blobs[position + 1 :]])


@pytest.mark.parametrize("order", [[1], [0, 2], [1, 0], [0, 0], [0, 1, 3, 2]])
def test_a_missing_repeated_or_moved_record_breaks_the_chain(order: list[int]) -> None:
    records = _chain()
    with pytest.raises(LedgerCorrupt):
        verify_chain([records[index] for index in order])


def test_a_resealed_record_breaks_the_chain_after_it() -> None:
    records = _chain()
    cheaper = seal(attrs.evolve(records[0], event=GaussianEvent(1e6, 1.0)))
    with pytest.raises(LedgerCorrupt, match="record 1"):
        verify_chain([cheaper, *records[1:]])


@pytest.mark.parametrize("state", [RecordState.VOID, RecordState.COMMITTED])
def test_a_release_that_was_never_reserved_cannot_end(state: RecordState) -> None:
    with pytest.raises(LedgerCorrupt, match="None"):
        verify_chain([seal(attrs.evolve(_chain()[0], state=state))])


def test_a_voided_release_cannot_be_committed() -> None:
    first, void = _chain()[:2]
    after = seal(attrs.evolve(void, seq=2, state=RecordState.COMMITTED, prev_hash=void.hash))
    with pytest.raises(LedgerCorrupt, match="record 2"):
        verify_chain([first, void, after])


def test_a_record_of_another_kind_is_unsupported() -> None:
    blob = encode_record(_chain()[0])
    body = blob[4:-32].replace(b'"gaussian"', b'"laplace"')
    framed = body + _digest(body)
    with pytest.raises(UnsupportedEvent, match="laplace"):
        decode_record(len(framed).to_bytes(4, "big") + framed)


def test_a_record_with_spare_whitespace_is_corrupt_though_its_hash_holds() -> None:
    blob = encode_record(_chain()[0])
    body = blob[4:-32].replace(b'"seq":', b'"seq": ')
    framed = body + _digest(body)
    with pytest.raises(LedgerCorrupt, match="canonical"):
        decode_record(len(framed).to_bytes(4, "big") + framed)
