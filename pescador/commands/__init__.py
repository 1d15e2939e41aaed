"""``python -m pescador``: tools for the command line.

bench/       which backend suits a stream
check/       whether a stream keeps the laws
doctor.py    whether every backend can run on this machine
clean.py     removing what programs that are dead left behind

check, doctor and clean are imported only when they are run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..interrupts import interrupts_held

__all__ = ["main"]

LONGEST_TIMEOUT = 86_400  # seconds; the system's calls do not take any number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # whoever pressed Ctrl-C wants no traceback
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    with interrupts_held():  # one that comes in the midst of an import may be shown, and lost
        from .. import __version__
        from . import bench

    parser = argparse.ArgumentParser(prog="python -m pescador", description="Tools of pescador")
    parser.add_argument("--version", action="version", version=f"pescador {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "clean", help="remove worker processes and shared memory whose owner is dead"
    ).add_argument("--dry-run", action="store_true", help="only say what would be removed")
    commands.add_parser("doctor", help="check that every backend can run on this machine").add_argument(
        "--timeout", type=_timeout, default=7, help="seconds for an item to come (default: 7)"
    )
    check = commands.add_parser(
        "check", help="find out whether a stream is repeatable, the same in workers, ..."
    )
    check.add_argument(
        "stream",
        metavar="module:name",
        help="a Streamer or a mux of yours, or a function that returns one",
    )
    check.add_argument("-n", type=int, default=100, metavar="N", help="items of each opening (default: 100)")
    check.add_argument(
        "--seconds", type=_timeout, default=10, metavar="S", help="bound of each opening (default: 10)"
    )
    bench.add_arguments(commands.add_parser("bench", help="find out which backend suits a stream"))
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return bench.run(options)
    if options.command == "check":
        with interrupts_held():
            from .check import run
        return run(options.stream, options.n, options.seconds)
    with interrupts_held():
        from . import clean, doctor
    return doctor.run(options.timeout) if options.command == "doctor" else clean.run(options.dry_run)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= LONGEST_TIMEOUT:  # nor is it NaN
        raise argparse.ArgumentTypeError(
            f"a number of seconds above 0, and at most {LONGEST_TIMEOUT} (a day), is needed, not {text!r}"
        )
    return seconds
