"""On the machines of a Ray cluster.

backend.py    what users choose, and its options
runtime.py    the runtime of this process: used if it is there, started and ended if that was asked for
pool.py       how the workers of a pool start and end
handle.py     the consumer's side of a worker: its messages, and its death
commands.py   the thread that sends commands
segments.py   large arrays of recipes, in the object store
causes.py     what Ray's exceptions say became of a worker
actor.py      a worker, as an actor of Ray
actor_loop.py its loop
records.py    large items, on both sides

A worker is a threaded actor that lives as long as its pool. Its method ``run`` is a *streaming generator* of
Ray: called once, it gives messages, in order, until the worker is to stop. What goes the other way are calls
of its method ``obey``, with numbered commands, because a threaded actor may run calls in another order::

    consumer                                               actor
    takes items, opens streams ──▶ queue
                                   commands thread ──obey──▶ mailbox ──▶ loop: runs generators, encodes
    queues of streams ◀── reading thread ◀── Ray ◀──run── outbox ◀───────┘

No thread that the garbage collector may interrupt ever calls Ray: to close a stream is to append to a queue.

Small items are packed for as long as Ray is busy with the message before; if it has nothing to do, an item is
sent at once. Large arrays to which nobody else refers go to Ray as they are, which copies them into the
object store of the worker's node, once. A worker keeps BUDGET bytes of them under way at most, or one item.
The reading thread copies what comes into memory of this process: then it is writeable, belongs to nobody
else, and outlives the runtime, and the object store gets its room back at once.

Ray pickles nothing of the user's: it is given bytes, and arrays of bytes.
"""
