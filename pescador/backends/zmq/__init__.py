"""In processes, everything through a ZeroMQ socket on the loopback interface.

backend.py    what users choose, and its options
listening.py  the socket that listens for a worker
sender.py     the worker's half
receiver.py   the consumer's half
frames.py     how records lie in frames, and what ZeroMQ needs of the system

Each worker has a socket of its own, and a secret that its consumer gave it through their connection. ZeroMQ
asks for it in the handshake (mechanism PLAIN), and the consumer answers at the *door* (RFC 27 of ZeroMQ),
so a stranger does not get as far as to send a message: nothing that comes from one is queued, looked at or
unpickled, and nothing is ever sent to those who connect. With the worker's first message the door is
removed, and from then on ZeroMQ lets nobody in, whatever they know.

Before the handshake is done, ZeroMQ holds one frame of a peer at most, and a frame has at most
FRAME_BYTES. So what is longer travels in several::

    message    frames of FRAME_BYTES, and a shorter one, maybe empty, that ends it
               one frame: the numbers and sizes of the records to which it refers, if there are any
    record     messages of one frame of FRAME_BYTES each, the last one may be shorter
    record     ...

The parts of a multipart message arrive only all together, so the frames of records are no such parts: each
is copied to its place while the next one is on its way.

Also a record in a single frame is copied: where libzmq puts a frame is aligned to 8 bytes and no more. To
copy it costs next to nothing, because it has just come and is still in the caches of the processor.
"""
