"""What ``python -m pescador`` runs."""

from __future__ import annotations

from .commands import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
