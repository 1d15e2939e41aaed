"""Starting, watching and ending processes.

launcher.py         starts the workers of a pool: forkserver, spawn or fork
interpreter.py      starts an interpreter: its command line, environment and hash seed
forkserver.py       the process from which workers are forked, as its consumer sees it
forkserver_main.py  what that process runs: forks workers, and ends what dead ones have left
worker_main.py      where a worker starts, and notices the end of its consumer
process.py          where a consumer notices the death of a process, tells its cause, or ends it
ending.py           how a worker ends, and ends what it has started
stacks.py           what a worker was doing when it stalled
"""
