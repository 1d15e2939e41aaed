"""ZMQStreamer, under the import path of earlier versions."""

from __future__ import annotations

from .parallel import ZMQStreamer

__all__ = ["ZMQStreamer"]
