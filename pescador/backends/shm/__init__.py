"""In processes, arrays through shared memory.

backend.py    what users choose, and its options
sender.py     the worker's half: it owns the ring, and puts items there
receiver.py   the consumer's half: views of the ring, under leases
ring.py       how places in the ring are allocated

All messages go through a pair of sockets, and with them the bodies of small items. Those of large items go
through a ring in shared memory (see :mod:`.ring`): the worker copies each array once, into the ring, where
those of :func:`pescador.empty` are already, and the consumer gets views of the ring, which are valid for as
long as it keeps them. When it keeps more than half of the ring, further items are delivered as private
copies, so that the worker always has room. When neither side can go on for want of room, or an item is larger
than the ring, the item gets a segment of its own, which the consumer keeps.
"""
