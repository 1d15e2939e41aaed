"""In processes, everything through a ZeroMQ socket."""
