"""Children that a test forks."""

import os
import pickle


class Child:
    """A process that is forked, and computes something; it may wait for the parent meanwhile.

    Parameters
    ----------
    function : callable
        Takes a function that waits until the parent calls :meth:`go`, and returns something that is pickled.
    before : callable, optional
        Called before the fork, when all pipes are there.
    """

    def __init__(self, function, before=None):
        self._result, result = os.pipe()
        waiting, self._go = os.pipe()
        if before is not None:
            before()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.close(self._result)
                os.close(self._go)
                os.write(result, b"s")

                def wait():
                    os.read(waiting, 1)

                with open(result, "wb") as file:
                    pickle.dump(function(wait), file)
                code = 0
            finally:
                os._exit(code)
        os.close(result)
        os.close(waiting)

    def started(self):
        """Wait until the child runs; call this at most once, and before :meth:`result`."""
        self._started = os.read(self._result, 1)
        return self._started

    _started = b""

    def go(self):
        """Have the child go on."""
        os.write(self._go, b"g")  # to close it would not do, for another child may have it, too
        os.close(self._go)
        self._go = None

    def result(self):
        """Return what the function gave."""
        with open(self._result, "rb") as file:
            data = file.read()
        self._result = None
        assert self.exit_code() == 0
        return pickle.loads(data[1 - len(self._started) :])

    def exit_code(self):
        """Wait for the end."""
        for descriptor in (self._go, self._result):
            if descriptor is not None:
                os.close(descriptor)
        self._go = self._result = None
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
