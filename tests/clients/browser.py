"""Opens the web page at `/` in a browser: browser.py URL [SCREENSHOT]

Prints the results as JSON: console messages, violations found by axe-core (light, dark and phone width), the text
of the page with and without scripts, and the elements reached with Tab.
"""

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
    nodes = lambda kind: [f"{v['id']}: {n['html'][:200]}" for v in result[kind] for n in v["nodes"]]
    return nodes("violations") + [v for v in nodes("incomplete") if v.startswith("color-contrast")]


def status_text(driver):
    return driver.find_element(By.ID, "live").text


def main(url, screenshot=None):
    found = {}
    driver = browser()
    driver.set_window_size(1000, 1400)
    driver.get(url)
    wait("update by the script", lambda: status_text(driver).startswith("sampled"))
    found["text"] = driver.find_element(By.TAG_NAME, "body").text
    # A later sample time in the page shows that the script has updated it.
    before = status_text(driver)
    driver.execute_script("window.untouched = document.querySelector('article')")
    wait("later sample", lambda: status_text(driver) != before)
    found["later"] = driver.find_element(By.TAG_NAME, "body").text
    found["in_place"] = driver.execute_script("return document.contains(window.untouched)")
    if screenshot:
        driver.save_screenshot(screenshot)

    driver.execute_script(AXE)
    found["violations"] = {}
    for name, scheme, width in [("light", "light", 1000), ("dark", "dark", 1000), ("phone", "light", 390)]:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        found["violations"][name] = violations(driver)
        found.setdefault("overflow", {})[name] = driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
    reached = []
    for _ in range(6):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        active = driver.switch_to.active_element
        reached.append(active.get_attribute("href") or active.get_attribute("aria-label") or active.tag_name)
    found["reached"] = reached
    found["console"] = [entry["message"] for entry in driver.get_log("browser")]
    driver.quit()

    plain = browser(scripts=False)
    plain.get(url)
    found["without_script"] = plain.find_element(By.TAG_NAME, "main").text
    plain.quit()
    json.dump(found, sys.stdout)


main(*sys.argv[1:])
