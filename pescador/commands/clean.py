"""``python -m pescador clean``: removes what programs that are dead left on this machine."""

from __future__ import annotations

from ..backends.system import orphans

__all__ = ["run"]


def run(dry_run: bool) -> int:
    """Remove worker processes whose consumer is dead, say which, and return the exit code."""
    found = orphans.reclaim(dry_run)
    for what in found:
        print(f"{'would remove' if dry_run else 'removed'} {what}")
    if not found:
        print("nothing is left behind")
    return 0
