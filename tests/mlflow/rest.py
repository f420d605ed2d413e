"""The smallest REST client that a test needs; the standard library only."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

SECONDS = 120


class Refused(Exception):
    """The server's own words on a request that it did not carry out."""

    def __init__(self, method: str, path: str, status: int, text: str):
        super().__init__(f"{method} {path}: {status} {text}")
        self.status = status
        self.text = text

    def code(self) -> str | None:
        """The error's code where the answer is MLflow's own, not a page of its web server."""
        try:
            return json.loads(self.text).get("error_code")
        except json.JSONDecodeError:
            return None


class Server:
    """One tracking server; no proxy of the environment is used."""

    def __init__(self, address: str, headers: dict[str, str] | None = None):
        self.address = address.rstrip("/")
        self.headers = headers or {}
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(self, path: str, data: bytes | None, headers: dict, method: str = "POST") -> bytes:
        """One request as it is; a refusal becomes an exception with its text."""
        request = urllib.request.Request(f"{self.address}{path}", data=data, method=method, headers=headers)
        try:
            with self.opener.open(request, timeout=SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(method, path, error.code, error.read().decode(errors="replace")) from None

    def call(self, method: str, path: str, body: dict | None = None, query: dict | None = None):
        """The decoded answer; an empty one is an empty object."""
        if query:
            path += "?" + urllib.parse.urlencode(query, doseq=True)
        data = None if body is None else json.dumps(body).encode()
        text = self.send(path, data, {"Content-Type": "application/json", **self.headers}, method)
        return json.loads(text) if text else {}

    def get(self, path: str, **query):
        return self.call("GET", path, query=query)

    def post(self, path: str, **body):
        return self.call("POST", path, body=body)

    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.send("/version", None, {}, "GET").decode().split(".")[:2])


def pages(call: Callable[..., dict], items: str, **arguments) -> Iterator[dict]:
    """All items of a paged answer."""
    token = {}
    while True:
        answer = call(**arguments, **token)
        yield from answer.get(items, [])
        if not answer.get("next_page_token"):
            return
        token = {"page_token": answer["next_page_token"]}


def told(call: Callable[[], object]) -> object:
    """The answer, or the refusal where that is the answer; a failure of the server is none."""
    try:
        return call()
    except Refused as refused:
        if refused.status >= 500:
            raise
        return {"refused": refused.status, "error_code": refused.code()}
