"""What runs in the consumer.

remote_stream.py    an open stream: the queue of its items, and how far it may be ahead
worker_handle.py    a worker as it is seen from here: its state, and what its streams raise
pool.py             which worker a stream runs on
process_pool.py     a pool of processes: how they start and end
process_handle.py   one of them: its messages are read here, and its death is noticed here
backoff.py          waiting for it before one sleeps
pace.py             whether the consumer waits for them nearly all of the time
inbox.py            what comes from it, and the items that are made of that
restarts.py         replacing those that died
recipes.py          what is sent only once, because many recipes need it
segments.py         the shared memory with their large arrays
recipe_pickler.py   what is sent when a stream opens
"""
