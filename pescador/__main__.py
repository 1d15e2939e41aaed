"""Command line: ``python -m pescador bench`` and ``clean``."""

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
    bench.add_arguments(commands.add_parser("bench", help="find out which backend suits a stream"))
    options = parser.parse_args(arguments)
    if options.command == "bench":
        return bench.run(options)

    found = orphans.reclaim(options.dry_run)
    for what in found:
        print(f"{'would remove' if options.dry_run else 'removed'} {what}")
    if not found:
        print("nothing is left behind")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
