"""ZMQStreamer, under the import path that it has had since version 1."""

from __future__ import annotations

from .parallel import ZMQStreamer

__all__ = ["ZMQStreamer"]
