"""A browser with the page open, as the tests of the page use it.

The test that starts this takes steps on request: `step(NAME)` prints it, and goes on when the test
has answered. What is found is printed at the end, in JSON."""

import json
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright

# A minute, for a loaded machine; times that are promised are asserted apart.
PATIENCE = 60_000


def step(name):
    """Has the test take a step; returns what it answers."""
    print(json.dumps({"step": name}), flush=True)
    return json.loads(sys.stdin.readline())


class Session:
    """A page in a fresh profile. A request elsewhere, an error of a script and what the policy
    forbids are errors."""

    def __init__(self, browser, arguments, **options):
        self.arguments = arguments
        self.faults = []
        options.setdefault("viewport", {"width": 1440, "height": 900})
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.origin = None
        self.page.on("console", lambda it: it.type == "error" and self._console(it))
        self.page.on("pageerror", lambda it: self.faults.append(f"{it} {it.stack}"))
        self.page.on("request", self._request)

    def _console(self, message):
        # A connection that is lost, on purpose, is told as well.
        if "net::ERR" not in message.text and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def _request(self, request):
        at = request.url
        if self.origin and not at.startswith((self.origin, "data:")):
            self.faults.append(f"a request to {at}")

    def open(self, path=""):
        """Opens the page with a code of its own, and waits until it is live."""
        link = self.link()
        self.origin = link.split("/?code=")[0]
        self.page.goto(link)
        self.page.wait_for_selector("#contact:text-is('live')")
        if path:
            self.page.goto(f"{self.origin}/{path}")
            self.page.wait_for_selector("#contact:text-is('live')")
        return self

    def link(self):
        """Returns a link that opens a session."""
        return self.ctl("web").strip()

    def ctl(self, *words):
        """Runs tramactl; returns its standard output."""
        command = [self.arguments.tramactl, "--socket", self.arguments.socket, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait(self, script, argument=None):
        """Waits until a script is true in the page; returns how long that took, in seconds."""
        began = time.monotonic()
        self.page.wait_for_function(script, arg=argument)
        return time.monotonic() - began

    def select(self, port):
        """Selects a port in the picture or in the list."""
        self.page.evaluate(SELECT, port)
        self.page.wait_for_selector(f"#panel h2:text-is({json.dumps(port)})")

    def close(self):
        """Ends the session; marks of code and numbers of errors are not for people."""
        texts = self.page.evaluate(TEXTS)
        raw = [text for text in texts if "`" in text or "os error" in text]
        self.context.close()
        assert not raw, raw
        assert not self.faults, self.faults


SELECT = """name => {
    const of = [...document.querySelectorAll('.port, .tr')].find(it => it.portName === name);
    of.dispatchEvent(new MouseEvent('click', { bubbles: true }));
}"""

TEXTS = """() => [document.body.innerText, document.querySelector('.picture')?.textContent ?? '',
    ...[...document.querySelectorAll('[title], [aria-label]')].flatMap(it =>
        [it.getAttribute('title') ?? '', it.getAttribute('aria-label') ?? ''])]"""

HAS_PORT = """name =>
    [...document.querySelectorAll('.picture .port')].some(it => it.portName === name)"""


def run(arguments, scenario):
    """Runs a scenario with a browser."""
    with sync_playwright() as playwright:
        # Tests are root, and in a namespace of their own.
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        try:
            found = scenario(browser, arguments)
        finally:
            browser.close()
    print(json.dumps({"found": found or {}}), flush=True)
