"""The tests of the page: one scenario a run. See session.py."""

import argparse
import json
import os

from axe_playwright_python.sync_playwright import Axe

from session import HAS_PORT, Session, run, step

CONTACT = "document.querySelector('#contact').innerText"

# From a change to the page that shows it, in seconds.
SOON = 2


def live(browser, arguments):
    """Changes are shown within two seconds; a page that has lost contact says so and comes back."""
    session = Session(browser, arguments).open()
    page, found = session.page, {}
    session.select("vm1")
    session.ctl("set", "Port", "vm1", "tag=77")
    found["tag"] = session.wait("() => document.querySelector('#panel').innerText.includes('77')")
    session.ctl("add-br", "fresh")
    path = f"options:path={arguments.socket}.new1"
    settings = ["set", "Interface", "new1", "type=vhost-user", path]
    session.ctl("add-port", "fresh", "new1", "--", *settings)
    found["port"] = session.wait(HAS_PORT, "new1")
    session.ctl("del-br", "fresh")
    found["gone"] = session.wait(f"name => !({HAS_PORT})(name)", "new1")
    late = {what: time for what, time in found.items() if time > SOON}
    assert not late, late
    step("ping")
    session.wait("() => !document.querySelector('#rate').innerText.startsWith('0')")

    page.evaluate("window.stays = true")
    for broken, mended in [("freeze", "thaw"), ("kill", None)]:
        known = charted(page)
        with page.expect_response(lambda it: "/v1/history" in it.url) as history:
            step(broken)
            if mended:
                session.wait(f"() => {CONTACT}.includes('no contact')")
                step(mended)
            session.wait(f"() => {CONTACT} === 'live'")
        history.value.finished()
        session.wait("() => new Promise(done => setTimeout(() => done(true), 100))")
        # The next web process knows nothing of the minutes before.
        assert charted(page) >= known, (broken, known)
    # With the last process of the daemon, its sessions end.
    step("stop")
    session.wait(f"() => {CONTACT}.includes('no contact')")
    step("start")
    page.wait_for_selector("#ended")
    other = session.context.new_page()
    link = session.link()
    for _ in range(2):
        # The second time it is used up, and its session is there.
        other.goto(link)
        other.wait_for_selector("#contact:text-is('live')")
    session.wait(f"() => {CONTACT} === 'live'")
    assert page.evaluate("window.stays"), "the page was not loaded again"
    session.ctl("set", "Port", "vm1", "tag=78")
    session.wait("() => document.querySelector('#panel').innerText.includes('78')")
    session.close()
    return found


def charted(page):
    """Returns how many seconds back the chart goes."""
    page.focus(".chart")
    page.keyboard.press("Home")
    seconds = -int(page.get_attribute(".chart", "aria-valuenow"))
    page.evaluate("document.activeElement.blur()")
    return seconds


def thousand(browser, arguments):
    """A thousand ports: how long the page works, and how large it is."""
    session = Session(browser, arguments)
    page = session.page
    metrics = session.context.new_cdp_session(page)
    metrics.send("Performance.enable")
    session.open()
    assert page.is_visible(".grid"), "the list comes first"
    found = {
        "work": main_thread_time(metrics),
        "paint": page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        ),
        "bytes": page.evaluate(
            "performance.getEntriesByType('resource').concat("
            "performance.getEntriesByType('navigation'))"
            ".filter(it => !it.name.includes('/v1/'))"
            ".reduce((sum, it) => sum + it.decodedBodySize, 0)"
        ),
    }
    step("traffic")
    page.wait_for_timeout(2000)
    step("begin")
    for view in ["list", "picture"]:
        page.wait_for_timeout(2000)
        page.evaluate("performance.clearMeasures()")
        before = renderer_time(browser)
        frames = "performance.getEntriesByName('trama-frame')"
        session.wait(f"() => {frames}.length >= 8")
        found[view] = page.evaluate(f"{frames}.map(it => it.duration)")
        found[f"{view}_renderer"] = (renderer_time(browser) - before) * 1000 / len(found[view])
        page.keyboard.press("l")
    step("end")
    page.keyboard.press("/")
    page.keyboard.type("vm777")
    session.wait("() => document.querySelector('#found').innerText.startsWith('1 of 1\\u202f000')")
    session.close()
    return found


def main_thread_time(metrics):
    """Returns the processor time of the page's main thread since they were enabled, in ms."""
    found = metrics.send("Performance.getMetrics")["metrics"]
    return next(it["value"] for it in found if it["name"] == "ThreadTime") * 1000


def renderer_time(browser):
    """Returns the processor time of the page's process, in seconds: other load affects it little."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(it["cpuTime"] for it in processes if it["type"] == "renderer")


PLACES = """() => [...document.querySelectorAll('.picture .box, .picture .net')].map(it => {
    const { x, y } = it.getBoundingClientRect();
    return [it.closest('.port')?.portName ?? it.querySelector('.netname')?.textContent, x, y];
})"""


def steady(browser, arguments):
    """Nothing moves, and what is no trouble is not shown as such."""
    session = Session(browser, arguments, reduced_motion="reduce").open()
    page = session.page
    board = "document.querySelector('.picture').textContent"
    duration = "getComputedStyle(document.querySelector('.port .box')).transitionDuration"
    assert page.evaluate(duration) == "0s", "motion is off where asked"
    places = page.evaluate(PLACES)
    trunk = "clear Port vm1 tag -- set Port vm1 trunks=5,6"
    for change, shown in [("set Port vm1 tag=30", "VLAN 30"), (trunk, "VLAN 5, 6")]:
        session.ctl(*change.split())
        session.wait(f"it => {board}.includes(it)", shown)
        assert page.evaluate(PLACES) == places, change
    # A port without a machine receives nothing that is flooded, and that is no trouble.
    step("flood")
    session.select("empty")
    session.wait("() => document.querySelector('#panel').innerText.includes('egress_not_ready')")
    assert page.inner_text("#drops") == "0"
    assert "empty" not in page.inner_text("#attention")
    # Nor is a port that nothing is plugged into a cable out.
    session.ctl("clear", "Port", "empty", "network")
    session.wait("() => document.querySelector('#panel').innerText.includes('not attached')")
    assert "cable" not in page.inner_text("#panel .phead")
    session.select("far")
    assert "10.9.0.2:4789 VNI 5" in page.inner_text("#panel")
    assert "→ 10.9.0.2" in page.evaluate(board)
    page.click(".netname:has-text('lab')")
    session.wait("() => document.querySelector('#panel h2').innerText === 'lab'")
    assert "what enters from vm1, to VLAN 99" in page.inner_text("#panel")
    page.keyboard.press("/")
    page.keyboard.type("vm")
    session.wait("() => document.querySelector('#found').innerText.startsWith('2 of 4')")
    assert page.locator("#found").bounding_box()["width"] > 20, "how many match is seen"
    page.click("#view-list")
    session.wait("() => document.querySelector('.over').innerText.includes('× ')")
    session.close()


def keyboard(browser, arguments):
    """Everything is reached by the keyboard alone."""
    session = Session(browser, arguments).open()
    page = session.page
    focused = "(document.activeElement.portName || document.activeElement.id)"
    press = page.keyboard.press

    def at(wanted):
        assert page.evaluate(focused) == wanted, (page.evaluate(focused), wanted)

    press("/")
    at("search")
    page.keyboard.type("vm2")
    press("Enter")
    at("vm2")
    press("Escape")
    press("Home")
    at("vm1")
    press("ArrowRight")
    at("vm2")
    press("Enter")
    assert page.inner_text("#panel h2") == "vm2"
    press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H2", "the panel is read"
    press("Tab")
    assert page.evaluate("document.querySelector('#panel').contains(document.activeElement)")
    press("Escape")
    at("vm2")
    press("l")
    session.wait("() => document.activeElement.getAttribute('role') === 'grid'")
    press("End")
    press("Enter")
    assert page.inner_text("#panel h2") != "Nothing selected"
    # Around from wherever it is, past the end of the page: nothing holds the focus.
    seen, ends = set(), 0
    for _ in range(400):
        press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            ends += 1
            if ends == 2:
                break
        seen.add(page.evaluate(f"{focused} || document.activeElement.textContent"))
    assert {"search", "view-picture", "view-list", "theme"} <= seen, seen
    session.close()


OPEN = "document.querySelectorAll('details').forEach(it => it.open = true)"


def views(session):
    """Shows the views of the page one after the other, each with its name."""
    page = session.page
    yield "picture"
    session.select("vm1")
    page.evaluate(OPEN)
    yield "port"
    page.click("text=Pull the cable")
    page.wait_for_selector(".proposal li")
    yield "proposal"
    page.click(".proposal >> text=Cancel")
    for kind, name in [("network", "home"), ("worker", "0")]:
        page.evaluate("it => location.hash = it", f"{kind}:{name}")
        page.reload()
        page.wait_for_selector("#panel section")
        page.evaluate(OPEN)
        yield kind
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    yield "list"
    page.keyboard.press("/")
    page.keyboard.type("vm1")
    yield "search"
    step("freeze")
    session.wait(f"() => {CONTACT}.includes('no contact')")
    yield "no contact"
    step("thaw")
    session.wait(f"() => {CONTACT} === 'live'")
    page.evaluate("document.querySelector('#ended').hidden = false")
    yield "no session"
    session.context.clear_cookies()
    page.goto(session.origin)
    page.wait_for_selector("body.login")
    yield "login"


def access(browser, arguments):
    """axe finds nothing serious in any view, in both themes, wide and narrow."""
    found = {}
    for theme in ["dark", "light"]:
        for width in [1440, 390]:
            options = {"color_scheme": theme, "viewport": {"width": width, "height": 900}}
            # The policy would keep axe itself out.
            session = Session(browser, arguments, bypass_csp=True, **options).open()
            for what in views(session):
                session.page.wait_for_timeout(300)
                for it in Axe().run(session.page).response["violations"]:
                    if it["impact"] in ["serious", "critical"]:
                        places = [node["html"][:200] for node in it["nodes"][:3]]
                        found[f"{theme} {width} {what} {it['id']}"] = places
            session.close()
    assert not found, json.dumps(found, indent=1)


def markup(browser, arguments):
    """Names are text, in the panel, in reasons and in events."""
    session = Session(browser, arguments).open()
    page = session.page
    page.on("dialog", lambda it: session.faults.append(f"a dialog: {it.message}"))
    name = step("name")
    for port in ["vm1", "vm2"]:
        session.select(port)
        session.wait("it => document.querySelector('#panel').textContent.includes(it)", name)
    session.wait("it => document.querySelector('#strip').textContent.includes(it)", name)
    page.keyboard.press("/")
    page.keyboard.type(name)
    session.wait("() => document.querySelector('#found').innerText.includes('ports match')")
    assert page.evaluate("document.querySelectorAll('img, iframe').length") == 0
    session.close()


def write(browser, arguments):
    """What may be changed is proposed as a command, and then done."""
    session = Session(browser, arguments).open()
    page = session.page
    session.select("vm1")

    def propose(command):
        page.wait_for_selector(".proposal code")
        shown = page.inner_text(".proposal code")
        assert shown == f"tramactl {command}", shown
        page.click("text=Do it")
        page.wait_for_selector(".proposal:not(:has-text('Do it')), .proposal [role=status]")

    page.fill(".change input", "30")
    page.click(".change >> text=Set")
    propose("set Port vm1 tag=30")
    session.wait("() => document.querySelector('#panel').innerText.includes('30')")
    assert session.ctl("get", "Port", "vm1", "tag") == "30\n"
    session.select("vm1")
    page.click("text=Pull the cable")
    propose("link vm1 down")
    session.wait("() => document.querySelector('.picture').textContent.includes('cable out')")
    session.select("vm2")
    page.select_option(".change select", "other")
    page.click(".change >> text=Move")
    propose("set Port vm2 network=other")
    assert session.ctl("list-ports", "other") == "vm2\n"
    page.click(".netname:has-text('home')")
    page.click("text=Add a forward")
    fields = {"name": "web", "host": "127.0.0.1", "hostPort": str(arguments.port),
              "guest": "10.7.0.5", "guestPort": "80"}
    for name, value in fields.items():
        page.fill(f"#panel input[name={name}]", value)
    page.click("#panel form button")
    rule = f"web,tcp,127.0.0.1,{arguments.port},10.7.0.5,80"
    propose(f"forward add home {rule}")
    assert "web" in session.ctl("forward", "list", "home")
    page.click("[aria-label='Delete the forward web']")
    propose("forward del home web")
    assert "web" not in session.ctl("forward", "list", "home")
    session.close()


def pictures(browser, arguments):
    """Takes pictures of the page in three states, into a folder."""
    for name, theme, port in [("idle", "light", None), ("busy", "dark", "web"),
                              ("broken", "light", "web")]:
        step(name)
        session = Session(browser, arguments, color_scheme=theme).open()
        # What a minute counts and a chart draws: for the docs, enough of it to be seen.
        seconds = 90 if "TRAMA_PICTURES" in os.environ else 8
        session.page.wait_for_timeout(1000 * (seconds if port else 2))
        if port:
            session.select(port)
            session.page.wait_for_timeout(2000)
        session.page.screenshot(path=f"{arguments.folder}/{name}.png")
        session.close()


SCENARIOS = [live, thousand, steady, keyboard, access, markup, write, pictures]


def main():
    """Reads the command line, and runs the scenario that it names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=[it.__name__ for it in SCENARIOS])
    parser.add_argument("--tramactl", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--port", type=int, default=0, help="a free L4 port")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    run(arguments, next(it for it in SCENARIOS if it.__name__ == arguments.scenario))


if __name__ == "__main__":
    main()
