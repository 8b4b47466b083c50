"""Makes the guide's picture of `sigward web`: `make screenshot`."""

import sys
from pathlib import Path

from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests.e2e import pages
from tests.e2e.pages import Browser
from tests.needs import lack

WIDTH, HEIGHT = 1400, 1180


def main(path: Path) -> None:
    """Writes a PNG, 1400 pixels wide."""
    if why := lack(*pages.BROWSER):
        sys.exit(why)
    with (
        Emulator() as emulator,
        Gateway(emulator, command="web", web_port=0, open_browser=False, reverse=False, route=pages.ROUTES) as gateway,
    ):
        gateway.wait_ready()
        pages.make_calls(gateway)
        with Browser(gateway.web_url, WIDTH, HEIGHT) as browser:
            browser.look_at("dynamodb GetItem")
            path.parent.mkdir(parents=True, exist_ok=True)
            browser.driver.save_screenshot(str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
