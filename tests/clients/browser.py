"""Opens the web page at `/` in a browser: browser.py URL [--old] [--screenshots FOLDER]

Prints the results as JSON: console messages, violations found by axe-core (light and dark, three widths, with all lines
closed and open; where there are many, with those of the first GPU open, and once with all), the text of the page with and without scripts, the table of pods sorted and filtered, the elements reached
with Tab, and the banner over old numbers. With --old, axe-core also examines the page with that banner. With --screenshots,
writes a picture of each view that axe-core examines.
"""

import argparse
import json
import pathlib
import sys
import time

import axe_playwright_python
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

AXE = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
TIMEOUT = 30


def browser(scripts=True):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)


def wait(name, found):
    end = time.monotonic() + TIMEOUT
    while not (value := found()):
        if time.monotonic() > end:
            sys.exit(f"no {name} within {TIMEOUT} s")
        time.sleep(0.05)
    return value


def violations(driver):
    result = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(done, (e) => done({error: String(e)}));"
    )
    assert "error" not in result, result
    assert len(result["passes"]) > 10, "axe-core has checked nothing"
    why = lambda node: "; ".join(check["message"] for check in node["any"] + node["all"] + node["none"])
    nodes = lambda kind: [f"{v['id']}: {n['html'][:200]}: {why(n)}" for v in result[kind] for n in v["nodes"]]
    return nodes("violations") + [v for v in nodes("incomplete") if v.startswith("color-contrast")]


def status_text(driver):
    return driver.execute_script("return document.getElementById('live').textContent")


def open_all(driver, is_open):
    driver.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = arguments[0] })", is_open)


def open_first(driver):
    """Opens the first GPU with all that is in it, and closes the others."""
    open_all(driver, False)
    driver.execute_script(
        "const gpu = document.querySelector('.gpu'); gpu.open = true;"
        "gpu.querySelectorAll('details').forEach((one) => { one.open = true })"
    )


def emulate(driver, scheme, width):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def pods(driver):
    """Sorts and filters the table of pods, if there is one."""
    if not driver.find_elements(By.ID, "pod-table"):
        return None
    # An update may replace any element, so each step is one script.
    names = lambda: driver.execute_script(
        "return [...document.querySelectorAll('#pod-table tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.querySelector('th').textContent)"
    )
    type_filter = lambda text: driver.execute_script(
        "const input = document.getElementById('filter'); input.value = arguments[0];"
        "input.dispatchEvent(new Event('input'))", text
    )
    found = {"all": names()}
    driver.execute_script("document.getElementById('sort-0').click()")
    found["sorted"] = names()
    type_filter(found["all"][0].replace("/", " "))
    found["filtered"] = names()
    # The next update keeps both.
    before = status_text(driver)
    wait("later sample", lambda: status_text(driver) != before)
    found["kept"] = names()
    type_filter("")
    return found


def banner(driver):
    return driver.find_element(By.ID, "stale")


def old_numbers(driver, name, reason, views):
    """Waits for the banner over old numbers, with its reason."""
    wait("banner", lambda: reason in banner(driver).text)
    text = banner(driver).text
    views(name)
    return {"text": text, "grey": driver.execute_script("return document.body.classList.contains('old')")}


def staleness(driver, views):
    """Has the exporter return the same page again and again, and then no page."""
    # While axe-core works, the page is not updated.
    wait("no banner", lambda: not banner(driver).is_displayed())
    found = {}
    driver.execute_script(
        "const page = document.documentElement.outerHTML; window.kept = window.fetch;"
        "window.fetch = () => Promise.resolve(new Response(page))"
    )
    found["stale"] = old_numbers(driver, "stale", "has no new sample", views)
    driver.execute_script("window.fetch = window.kept")
    wait("no banner", lambda: not banner(driver).is_displayed())
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    found["dead"] = old_numbers(driver, "dead", "does not respond", views)
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    wait("no banner", lambda: not banner(driver).is_displayed())
    return found


def main(url, old, screenshots):
    found = {}
    driver = browser()
    driver.set_script_timeout(60 * TIMEOUT)
    driver.set_window_size(1080, 900)
    driver.get(url)
    wait("update by the script", lambda: status_text(driver).startswith("sampled"))
    found["closed"] = driver.find_element(By.TAG_NAME, "body").text
    found["height"] = driver.execute_script("return document.documentElement.scrollHeight")
    open_all(driver, True)
    found["text"] = driver.find_element(By.TAG_NAME, "body").text
    # A later sample time in the page shows that the script has updated it.
    before = status_text(driver)
    driver.execute_script("window.untouched = document.querySelector('.gpu')")
    wait("later sample", lambda: status_text(driver) != before)
    found["later"] = driver.find_element(By.TAG_NAME, "body").text
    found["in_place"] = driver.execute_script("return document.contains(window.untouched) && window.untouched.open")
    found["pods"] = pods(driver)

    driver.execute_script(AXE)
    found["violations"], found["overflow"] = {}, {}
    all_views = [(scheme, width) for scheme in ["light", "dark"] for width in [360, 1080, 1920]]

    def views(state, shown=all_views):
        for scheme, width in shown:
            emulate(driver, scheme, width)
            name = f"{state} {scheme} {width}"
            found["violations"][name] = violations(driver)
            found["overflow"][name] = driver.execute_script(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            if screenshots:
                driver.save_screenshot(f"{screenshots}/{name}.png")

    open_all(driver, False)
    views("closed")
    # axe-core takes a minute for thousands of elements: all views with one GPU open, and one view with all.
    if len(driver.find_elements(By.TAG_NAME, "details")) > 60:
        open_first(driver)
        views("first")
        open_all(driver, True)
        views("open", all_views[1:2])
    else:
        open_all(driver, True)
        views("open")
    emulate(driver, "light", 1080)
    driver.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(6):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        active = driver.switch_to.active_element
        reached.append(active.get_attribute("href") or active.get_attribute("aria-label") or active.tag_name)
    found["reached"] = reached
    found["console"] = [entry["message"] for entry in driver.get_log("browser")]
    found["old"] = staleness(driver, views if old else lambda state: None)
    driver.quit()

    plain = browser(scripts=False)
    plain.get(url)
    found["without_script"] = plain.find_element(By.TAG_NAME, "main").get_property("textContent")
    plain.quit()
    json.dump(found, sys.stdout)


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--old", action="store_true")
parser.add_argument("--screenshots")
main(**vars(parser.parse_args()))
