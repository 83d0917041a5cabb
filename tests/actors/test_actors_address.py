"""Addresses are values with one text form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.address import Address

SEGMENT = st.text("abcXYZ019_.-", min_size=1, max_size=12)


@given(node=SEGMENT, path=st.lists(SEGMENT, min_size=1, max_size=4).map("/".join))
def test_an_address_is_read_back_from_its_text(node: str, path: str) -> None:
    assert Address.parse(str(Address(node, path))) == Address(node, path)
