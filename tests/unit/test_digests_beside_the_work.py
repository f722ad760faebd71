"""A digest that is reckoned beside the work is the one that hashlib gives, and leaves no thread behind."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight.system.digests import BesideSha256

SIZES = st.sampled_from([0, 1, 700, 500_000, (1 << 20) - 1, 1 << 20, 3_500_000])


def digested(digest: BesideSha256, sizes: list[int]) -> bytes:
    """Feed so many bytes at a time out of one buffer that is used anew each time."""
    buffer = bytearray(4 << 20)
    whole = b""
    for number, size in enumerate(sizes):
        buffer[:size] = bytes([number + 1]) * size
        digest.update(memoryview(buffer)[:size])
        whole += buffer[:size]
    return whole


@settings(deadline=None, max_examples=30)  # megabytes are hashed, on a machine that may be busy
@given(sizes=st.lists(SIZES, max_size=5), later=st.lists(SIZES, max_size=2))
def test_it_is_the_digest_of_everything_so_far(sizes: list[int], later: list[int]) -> None:
    with BesideSha256() as digest:
        whole = digested(digest, sizes)
        assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()
        whole += digested(digest, later)
        assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_what_was_before_a_restart_does_not_count() -> None:
    with BesideSha256() as digest:
        digested(digest, [2 << 20, 5])
        digest.restart()
        whole = digested(digest, [3 << 20, 7])
        assert digest.hexdigest() == hashlib.sha256(whole).hexdigest()


def test_no_thread_is_left_when_it_is_given_up() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), BesideSha256() as digest:
        digested(digest, [4 << 20, 4 << 20])
        raise KeyboardInterrupt
    assert threading.active_count() == before
