"""What runs in a worker.

loop.py           the loop: commands, and the generators in turn
process_loop.py   the same in a process: when items are encoded and sent
open_stream.py    an open stream, and when it is told where that stands
pending.py        what is not sent yet
ownership.py      what a generator still holds of its items, so that it has to be copied
loading.py        recipes that came
"""
