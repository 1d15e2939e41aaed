"""A headless Chromium that opens pages, and says what is wrong with them."""

import contextlib
import functools
import http.server
import itertools
import json
import shutil
import socket
import subprocess
import sys
import threading

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60  # in which a page is loaded, also where other programs use all cores

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
# It is to speak with the server of the test, and with nobody else.
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Chromium takes commands from file descriptor 3, and answers on 4: here the same socket.
LAUNCH = """import os, sys
descriptor, program = int(sys.argv[1]), sys.argv[2]
os.dup2(descriptor, 3)
os.dup2(descriptor, 4)
os.execv(program, sys.argv[2:])"""

# Waits for all pictures, also those that would be loaded when somebody scrolls there.
PICTURES = """Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode().then(() => null, () => `${image.src} cannot be shown`);
})).then((found) => new Promise((done) => setTimeout(done, 50, found.filter((text) => text))))"""
TOO_WIDE = """document.documentElement.scrollWidth > WIDTH
  ? [`it is ${document.documentElement.scrollWidth} pixels wide`] : []"""


class Browser:
    """A tab, driven by the DevTools protocol: JSON objects, each of which ends with a zero byte."""

    def __init__(self, folder, width):
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(SECONDS)
        self._received, self._numbers = b"", itertools.count(1)
        self._width = width
        self._problems, self._loaded, self._session = [], False, None
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    LAUNCH,
                    str(theirs.fileno()),
                    CHROMIUM,
                    f"--user-data-dir={folder}",
                    *OPTIONS,
                    "about:blank",
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def __enter__(self):
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        size = {"width": self._width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        return self

    def __exit__(self, *exc_info):
        with contextlib.suppress(Exception):
            self._session = None
            self.command("Browser.close")
        self._socket.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()

    def command(self, method, **parameters):
        """Have Chromium do something, and return its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.sendall(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        """Return the next message. If it is an event, note what it says of the page."""
        while b"\0" not in self._received:
            received = self._socket.recv(2**20)
            assert received, "Chromium has ended"
            self._received += received
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        event, what = message.get("method"), message.get("params", {})
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self._problems.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
            self._problems.append(f"console: {what['args']}")
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self._problems.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
        return message

    def evaluate(self, script):
        """Return the value of an expression of JavaScript, or of what it promises."""
        options = {"awaitPromise": True, "returnByValue": True}
        return self.command("Runtime.evaluate", expression=script, **options)["result"].get("value")

    def open(self, address):
        """Open a page, and return a list of what is wrong with it."""
        self._problems, self._loaded = [], False
        self.command("Page.navigate", url=address)
        while not self._loaded:
            self._receive()
        found = self.evaluate(PICTURES) + self.evaluate(TOO_WIDE.replace("WIDTH", str(self._width)))
        return found + self._problems


@contextlib.contextmanager
def served(folder):
    """Serve a folder on the loopback interface, and give its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
