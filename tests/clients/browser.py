"""What a browser makes of the page at `/`: browser.py URL [SCREENSHOT]

Prints what was found as JSON: messages of the console, what axe-core objects to in light and dark and at the
width of a phone, what the page says with and without scripts, and what Tab reaches.
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
PATIENCE = 30


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


def wait(what, found):
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        if time.monotonic() > end:
            sys.exit(f"no {what} in {PATIENCE} s")
        time.sleep(0.05)
    return value


def objections(driver):
    answer = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(done, (e) => done({error: String(e)}));"
    )
    assert "error" not in answer, answer
    assert len(answer["passes"]) > 10, "axe-core has looked at nothing"
    told = lambda kind: [f"{o['id']}: {n['html'][:200]}" for o in answer[kind] for n in o["nodes"]]
    return told("violations") + [o for o in told("incomplete") if o.startswith("color-contrast")]


def live(driver):
    return driver.find_element(By.ID, "live").text


def main(url, screenshot=None):
    found = {}
    driver = browser()
    driver.set_window_size(1000, 1400)
    driver.get(url)
    wait("word of the script", lambda: live(driver).startswith("sampled"))
    found["text"] = driver.find_element(By.TAG_NAME, "body").text
    # The script has redrawn or moved something when the page says a later time.
    before = live(driver)
    driver.execute_script("window.untouched = document.querySelector('article')")
    wait("later sample", lambda: live(driver) != before)
    found["later"] = driver.find_element(By.TAG_NAME, "body").text
    found["in_place"] = driver.execute_script("return document.contains(window.untouched)")
    if screenshot:
        driver.save_screenshot(screenshot)

    driver.execute_script(AXE)
    found["objections"] = {}
    for name, scheme, width in [("light", "light", 1000), ("dark", "dark", 1000), ("phone", "light", 390)]:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        found["objections"][name] = objections(driver)
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
