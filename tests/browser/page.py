"""The tests of the page: one scenario a run. See session.py."""

import argparse
import json

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
        step(broken)
        if mended:
            session.wait(f"() => {CONTACT}.includes('no contact')")
            step(mended)
        session.wait(f"() => {CONTACT} === 'live'")
    # With the last process of the daemon, its sessions end.
    step("stop")
    session.wait(f"() => {CONTACT}.includes('no contact')")
    step("start")
    page.wait_for_selector("#ended")
    other = session.context.new_page()
    other.goto(session.link())
    session.wait(f"() => {CONTACT} === 'live'")
    assert page.evaluate("window.stays"), "the page was not loaded again"
    session.ctl("set", "Port", "vm1", "tag=78")
    session.wait("() => document.querySelector('#panel').innerText.includes('78')")
    session.close()
    return found


def thousand(browser, arguments):
    """A thousand ports: how long the page works, and how large it is."""
    session = Session(browser, arguments).open()
    page = session.page
    assert page.is_visible(".grid"), "the list comes first"
    found = {
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
    for view in ["list", "picture"]:
        page.wait_for_timeout(2000)
        page.evaluate("performance.clearMeasures()")
        session.wait("() => performance.getEntriesByName('trama-frame').length >= 8")
        found[view] = page.evaluate(
            "performance.getEntriesByName('trama-frame').map(it => it.duration)"
        )
        page.keyboard.press("l")
    page.keyboard.press("/")
    page.keyboard.type("vm777")
    session.wait("() => document.querySelector('#found').innerText.startsWith('1 of 1000')")
    session.close()
    return found


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


def access(browser, arguments):
    """axe finds nothing serious, in both themes, wide and narrow."""
    found = {}
    for theme in ["dark", "light"]:
        for width in [1440, 390]:
            options = {"color_scheme": theme, "viewport": {"width": width, "height": 900}}
            # The policy would keep axe itself out.
            session = Session(browser, arguments, bypass_csp=True, **options).open()
            page = session.page
            for what in ["", "port", "list"]:
                if what == "port":
                    session.select("vm1")
                    page.evaluate(
                        "document.querySelectorAll('details').forEach(it => it.open = true)"
                    )
                if what == "list":
                    page.keyboard.press("Escape")
                    page.keyboard.press("l")
                page.wait_for_timeout(300)
                for it in Axe().run(page).response["violations"]:
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
        # What a minute counts and a chart draws.
        session.page.wait_for_timeout(8000 if port else 2000)
        if port:
            session.select(port)
            session.page.wait_for_timeout(2000)
        session.page.screenshot(path=f"{arguments.folder}/{name}.png")
        session.close()


SCENARIOS = [live, thousand, keyboard, access, markup, write, pictures]


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
