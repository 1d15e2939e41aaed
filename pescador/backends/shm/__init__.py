"""In processes, arrays through shared memory."""
