"""A headless Chromium, driven over the WebDriver protocol with the standard library only."""

import base64
import json
import shutil
import socket
import subprocess
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
DRIVER = shutil.which("chromedriver")

KEYS = {
    "left": "\ue012",
    "up": "\ue013",
    "right": "\ue014",
    "down": "\ue015",
    "space": " ",
    "home": "\ue011",
    "end": "\ue010",
}


class Browser:
    """A session; use it in a `with` statement."""

    def __init__(self, width=1000, height=900, dark=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += [f"--window-size={width},{height}"]
        if dark:
            arguments += ["--blink-settings=preferredColorScheme=0"]
        options = {"binary": CHROMIUM, "args": arguments}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        try:
            self._url += "/" + self._start(wanted)["sessionId"]
        except BaseException:
            self._driver.kill()
            self._driver.wait()
            raise

    def _start(self, wanted):
        for _ in range(100):  # the driver takes a moment to listen
            try:
                return self._ask("", wanted)
            except (URLError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not answer")

    def _ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(self._url + path, data, headers, method=method)
        with urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._ask("", method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, url):
        self._ask("/url", {"url": url})

    def run(self, script):
        """The value that a piece of JavaScript returns."""
        return self._ask("/execute/sync", {"script": script, "args": []})

    def wait(self, condition):
        """Wait until an expression is true."""
        for _ in range(300):
            if self.run(f"return !!({condition})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never came true: {condition}")

    def press(self, *keys):
        actions = [
            {"type": kind, "value": KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        self._ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def drag(self, *points, touch=False):
        """Press mouse or finger at the first point of the window, move to the others, let go."""
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)} for x, y in points
        ]
        actions = [
            moves[0],
            {"type": "pointerDown", "button": 0},
            *moves[1:],
            {"type": "pointerUp", "button": 0},
        ]
        kind = "touch" if touch else "mouse"
        source = {"type": "pointer", "id": kind, "actions": actions}
        source["parameters"] = {"pointerType": kind}
        self._ask("/actions", {"actions": [source]})

    def enter(self, selector):
        """Go on in a frame of the page."""
        frame = self._ask("/element", {"using": "css selector", "value": selector})
        self._ask("/frame", {"id": frame})

    def screenshot(self):
        return base64.b64decode(self._ask("/screenshot"))

    def errors(self):
        """What the page complained about."""
        return [e for e in self._ask("/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]
