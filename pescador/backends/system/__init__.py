"""What the machine gives, and what is left on it by processes that were killed.

pids.py           processes by their number: state, offspring, signals, a descriptor that tells of their end
owner.py          who owns a worker or a segment, and whether that is certainly dead
orphans.py        ends workers and removes segments whose owner is dead
shared_memory.py  segments, which the system frees with their last user
leases.py         what of them is still in use here, and what becomes of that at a fork
search_path.py    where another process of this program finds modules
descriptors.py    file descriptors that are sent
waiting.py        waits that a Ctrl-C can end
blas.py           how many threads numeric libraries use
threads.py        starting a thread where there may be no more of them
"""
