"""`sigward web` with calls to look at, and a browser that looks at them: for the test and for the guide's picture."""

import http.client
import json
import shutil
import socket
import ssl
import uuid
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from sigward.demo.emulator_server import FAIL_HEADER
from sigward.demo.gateway import Gateway
from tests.e2e.conftest import Answer

PATIENCE = 30

JSON = {"content-type": "application/x-amz-json-1.0"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CLIENTS_OWN = {
    "header": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "query": "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
    "token": "a-token-that-must-not-leak",
}
"""What clients sign with themselves. Nobody else is to see it."""

ROUTES = [{"host": "s3.us-east-1.amazonaws.com", "path": "/secrets/*", "action": "deny"}]


BROWSER = ("chromium", "chromedriver")


def make_calls(gateway: Gateway) -> dict[str, int]:
    """Signed, repeated, denied, refused and presigned ones, as a client of the forward proxy makes them. Returns their statuses."""
    table = {"TableName": "orders", "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}]}
    table |= {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST"}
    item = {"TableName": "orders", "Item": {"id": {"S": "2026-0042"}, "total": {"N": "12.50"}}}
    key = {"TableName": "orders", "Key": {"id": {"S": "2026-0042"}}}
    theirs = f"AWS4-HMAC-SHA256 Credential=AKIDCLIENT/20260101/us-east-1/sts/aws4_request, Signature={CLIENTS_OWN['header']}"
    presigned = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Security-Token={CLIENTS_OWN['token']}&X-Amz-Signature={CLIENTS_OWN['query']}"
    trust = ssl.create_default_context(cafile=str(gateway.ca_file))

    def call(service: str, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
        connection = http.client.HTTPSConnection(gateway.addresses["forward"], timeout=PATIENCE, context=trust)
        connection.set_tunnel(f"{service}.{gateway.emulator.region}.amazonaws.com")
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def dynamodb(operation: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> int:
        headers = JSON | {"x-amz-target": f"DynamoDB_20120810.{operation}"} | (headers or {})
        return call("dynamodb", "POST", "/", headers, json.dumps(body).encode())

    return {
        "create": dynamodb("CreateTable", table),
        "put": dynamodb("PutItem", item),
        "bucket": call("s3", "PUT", "/reports"),
        "object": call("s3", "PUT", "/reports/2026/november.csv", {"content-type": "text/csv"}, b"id,total\n2026-0042,12.50\n"),
        "identity": call("sts", "POST", "/", FORM | {"authorization": theirs}, b"Action=GetCallerIdentity&Version=2011-06-15"),
        "presigned": call("s3", "GET", f"/reports/2026/november.csv?{presigned}"),
        "metadata": tunnel(gateway.addresses["forward"], "169.254.169.254:443"),
        "denied": call("s3", "GET", "/secrets/master.key"),
        "repeated": dynamodb("GetItem", key, {FAIL_HEADER: f"{uuid.uuid4()}/1"}),
    }


def tunnel(proxy: str, authority: str) -> int:
    """The status that a CONNECT gets."""
    host, _, port = proxy.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        return int(connection.recv(64).split(b" ")[1])


@dataclass
class Pages:
    """The pages' server, asked without a browser. `url`: with the token."""

    url: str

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """As the browser would; with the token, unless `headers` say otherwise."""
        parts = urlsplit(self.url)
        token = parts.query.removeprefix("token=")
        connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"authorization": f"Bearer {token}"} | (headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def flows(self) -> list[dict[str, Any]]:
        """All that are kept."""
        found: list[dict[str, Any]] = json.loads(self.request("GET", "/flows").body)
        return found


class Browser:
    """Chromium without a window, at a page. Used with `with`. `arguments`: more of Chromium's."""

    def __init__(self, url: str, width: int = 1400, height: int = 900, arguments: tuple[str, ...] = ()) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}", *arguments):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        self._wait = WebDriverWait(self.driver, PATIENCE)
        self._url = url

    def __enter__(self) -> Self:
        self.driver.get(self._url)
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def wait_for_text(self, text: str) -> None:
        """Returns when the page shows it."""
        self._wait.until(lambda driver: text in driver.find_element(By.TAG_NAME, "body").text)

    def row(self, text: str) -> WebElement:
        """The row of the list that holds a text, once it is there."""
        return self._one(f"//tr[contains(., {json.dumps(text)})]")

    def click(self, path: str) -> None:
        """Clicks what an XPath names, once it is there."""
        self._wait.until(lambda _: self._clicked(path))

    def look_at(self, text: str, message: str = "Request") -> str:
        """Clicks the row, opens sigward's view of its request or response, returns what the view says."""
        self.row(text).click()
        self.click(f"//*[contains(@class, 'nav-tabs')]//a[normalize-space()='{message}']")
        self.click("//*[contains(@class, 'contentview')]//a[contains(., 'View')]")
        self.click("//ul[contains(@class, 'dropdown-menu')]//a[normalize-space()='sigward']")
        self._wait.until(lambda _: "decision:" in self.view())
        return self.view()

    def view(self) -> str:
        """What the open view says."""
        return "\n".join(found.text for found in self.driver.find_elements(By.CSS_SELECTOR, ".contentview"))

    def dom(self) -> str:
        """All that is there, seen or not."""
        found: str = self.driver.execute_script("return document.documentElement.outerHTML")  # type: ignore[no-untyped-call]
        return found

    def _one(self, path: str) -> WebElement:
        found: WebElement = self._wait.until(lambda driver: driver.find_element(By.XPATH, path))
        return found

    def _clicked(self, path: str) -> bool:
        self.driver.find_element(By.XPATH, path).click()
        return True
