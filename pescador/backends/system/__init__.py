"""What the machine gives, and what is left on it by processes that were killed.

pids.py           processes by their number: state, offspring, signals, a descriptor that tells of their end
owner.py          who owns a worker, and whether that is certainly dead
orphans.py        ends workers whose owner is dead
shared_memory.py  segments, which the system frees with their last user, and handles of them that are sent
limits.py         how much memory is free, here and in the container
leases.py         what of them is still in use here, and what becomes of that at a fork
search_path.py    where another process of this program finds modules
inherited.py      what else a process takes over from the one that starts it
polling.py        waiting for sockets
waiting.py        waits that a Ctrl-C can end
blas.py           how many threads numeric libraries use
threads.py        starting a thread where there may be no more of them
later.py          psutil, which is imported when it is needed

What differs between Linux, macOS and Windows is here, chosen by what the system has; but how a process starts
and ends on Windows is in :mod:`..processes`.
"""
