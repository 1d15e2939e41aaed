"""Messages as bytes, and bytes that are no message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pescador import PescadorError
from pescador.backends.protocol import messages
from pescador.backends.protocol.messages import NOWHERE
from pescador.backends.worker.pending import Pending


def unpacked(message):
    """Return the entries of a message."""
    return messages.unpack_items(memoryview(message))[-1]


@given(st.binary(max_size=300))
def test_random_bytes_are_no_message(data):
    try:
        entries = unpacked(data)
    except PescadorError:
        return
    assert size_of(entries) <= len(data)


def size_of(entries):
    """Return the size of a message with these entries."""
    sizes = [messages.ENTRY_SIZE + sum(map(len, bodies)) for _, _, bodies, _ in entries]
    return messages.HEADER.size + sum(sizes)


@given(st.integers(0, 2**16 - 1), st.binary(max_size=200))
def test_a_message_of_fewer_entries_than_it_says_is_refused(n, data):
    message = messages.HEADER.pack(messages.ITEMS, n, 0.0, 0) + data
    if n * messages.ENTRY_SIZE > len(data):
        with pytest.raises(PescadorError, match="broken message"):
            unpacked(message)


@given(st.binary(max_size=100))
def test_random_bytes_are_no_table_of_extents(data):
    try:
        extents, end = messages.unpack_table(data)
    except PescadorError:
        return
    assert messages.pack_table(extents) == data[:end]


@given(st.lists(st.builds(messages.Extent, st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 2**40))))
def test_extents_arrive_as_they_were(extents):
    table = messages.pack_table(extents)
    assert messages.unpack_table(table + b"more") == (extents, len(table))


@given(st.data())
def test_a_changed_message_is_refused_or_still_a_message(data):
    items = st.tuples(
        st.integers(1, 2), st.binary(max_size=30) | st.builds(messages.Extent, *[st.integers(1, 99)] * 3)
    )
    items = data.draw(st.lists(items, max_size=6))
    pending = Pending()
    for stream, body in items:
        if isinstance(body, bytes):
            pending.add(stream, 1, body)
        else:
            pending.add_record(stream, 1, body)
    message = bytearray(b"".join(pending.message(0.0, 0)))
    assert contents(unpacked(message)) == items
    if data.draw(st.booleans()):
        del message[data.draw(st.integers(0, len(message) - 1)) :]
    else:
        message[data.draw(st.integers(0, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        entries = unpacked(message)
    except PescadorError:
        return
    assert size_of(entries) <= len(message)


def contents(entries):
    """Return the stream, and the body or record, of each item."""
    return [
        (stream, extent if extent[0] else bytes(body))
        for stream, _, bodies, extent in entries
        for body in bodies
    ]


def test_items_of_one_kind_share_an_entry():
    pending = Pending()
    for _ in range(100):
        pending.add(1, 1, b"ab")
    message = b"".join(pending.message(0.0, 0))
    assert len(message) == messages.HEADER.size + messages.ENTRY_SIZE + 200
    assert contents(unpacked(message)) == [(1, b"ab")] * 100


def test_more_items_than_a_message_may_hold_are_refused():
    entry = messages.ENTRY.pack(1, 1, 2**32 - 1, 0, *NOWHERE)
    with pytest.raises(PescadorError, match="broken message"):
        unpacked(messages.HEADER.pack(messages.ITEMS, 1, 0.0, 0) + entry)
