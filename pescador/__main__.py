"""Command line: ``python -m pescador bench``, ``clean`` and ``doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import bench
from .backends import orphans

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pescador", description="Tools of pescador")
    commands = parser.add_subparsers(dest="command", required=True)
    clean = commands.add_parser("clean", help="remove worker processes and shared memory whose owner is dead")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    doctor = commands.add_parser("doctor", help="check that every backend can run on this machine")
    doctor.add_argument("--timeout", type=float, default=7, help="seconds for an item to come (default: 7)")
    bench.add_arguments(commands.add_parser("bench", help="find out which backend suits a stream"))
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return bench.run(options)
    if options.command == "doctor":
        return _doctor(options.timeout)

    found = orphans.reclaim(options.dry_run)
    for what in found:
        print(f"{'would remove' if options.dry_run else 'removed'} {what}")
    if not found:
        print("nothing is left behind")
    return 0


def _doctor(timeout: float) -> int:
    from .doctor import examine

    failed = False
    for finding in examine(timeout):
        print(finding, flush=True)
        failed |= finding.state == "fail"
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
