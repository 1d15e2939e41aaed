"""What runs in a worker.

loop.py           the loop: commands, and the generators in turn
encoding_loop.py  the same where items are encoded and sent
process_loop.py   the same in a process: commands and messages through a connection, and when to send
open_stream.py    an open stream, and when it is told where that stands
pending.py        what is not sent yet
ownership.py      what a generator still holds of its items, so that it has to be copied
loading.py        recipes that came
"""
