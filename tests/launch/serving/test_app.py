"""A server in a thread: who is let in, what is refused in which words, and that nothing is lost or mixed up."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from launch.serving.asks import Generate
from launch.serving.desk import Desk
from launch.serving.guard import Guard
from launch.serving.options import ServeOptions
from tests.launch.serving.models import Counting, picture_bytes, pixels, served, serving
from tests.launch.serving.test_answers import bomb

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    models = [served("DCGAN"), served("FastStyle"), served("CUT"), Counting()]
    with serving(models, token=TOKEN, max_body=200_000, max_pixels=1_000_000, max_side=256, upload=1.0) as found:
        yield found


def sample(client: httpx.Client, name: str) -> dict[str, float]:
    """The values of a metric, by its labels' values in order."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {" ".join(one.labels.values()): one.value for found in families for one in found.samples if one.name == name}


def test_two_hundred_requests_sixteen_at_a_time_are_each_answered_as_alone(client: httpx.Client) -> None:
    seeds = list(range(200))
    path, alike = "/models/dcgan/generate", served("DCGAN")
    alone = {seed: client.post(path, json={"seed": seed, "label": seed % 2}).content for seed in seeds[::10]}
    before = sample(client, "gesso_batch_size_sum")["dcgan"], sample(client, "gesso_batch_size_count")["dcgan"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: client.post(path, json={"seed": seed, "label": seed % 2}), seeds))
    assert {answer.status_code for answer in answers} == {200}
    after = sample(client, "gesso_batch_size_sum")["dcgan"], sample(client, "gesso_batch_size_count")["dcgan"]
    assert after[0] - before[0] == 200
    # Batches form.
    assert 200 / (after[1] - before[1]) > 2
    assert max(int(answer.headers["X-Gesso-Batch"]) for answer in answers) > 2
    for seed, content in alone.items():
        assert answers[seed].content == content, seed
    for start in range(0, 200, 8):
        asks = [Generate(seed, label=seed % 2) for seed in seeds[start : start + 8]]
        for ask, expected in zip(asks, alike.run(asks), strict=True):
            np.testing.assert_array_equal(pixels(answers[ask.seed].content), expected[:, :, 0])


def test_pictures_are_stylised_and_translated(client: httpx.Client) -> None:
    data = picture_bytes()
    made = client.post("/models/faststyle/stylize", files={"content": data}, data={"style_index": 1, "alpha": 0.5})
    mixed = client.post("/models/faststyle/stylize", files={"content": data}, data={"weights": [0, 1], "alpha": 0.5})
    assert made.status_code == 200
    assert made.content == mixed.content
    assert pixels(made.content).shape == (40, 60, 3)
    small = client.post("/models/cut/translate", files={"picture": data}, data={"size": 32, "format": "webp"})
    assert small.headers["content-type"] == "image/webp"
    assert pixels(small.content).shape == (21, 32, 3)


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("dcgan/generate", {"json": {"seed": -1}}, "seed: input should be greater than or equal to 0"),
        ("dcgan/generate", {"json": {"sede": 1}}, "sede: extra inputs are not permitted"),
        ("dcgan/generate", {"json": {"label": 3}}, "label is 3; dcgan has classes 0 to 2"),
        ("dcgan/generate", {"json": {"truncation": 0.5}}, "truncation_psi: dcgan is a DCGAN"),
        ("dcgan/generate", {"content": b'{"seed": NaN}', "headers": {"content-type": "application/json"}}, "seed: "),
        ("dcgan/generate", {"content": b"{", "headers": {"content-type": "application/json"}}, "body is no JSON"),
        ("dcgan/stylize", {"files": {"content": picture_bytes()}}, "it can generate, not stylize"),
        ("faststyle/stylize", {}, "content: field required"),
        ("faststyle/stylize", {"files": {"content": b"text"}}, "content is not a picture that can be read"),
        ("faststyle/stylize", {"files": {"content": bomb(30_000)}}, "too large"),
        ("faststyle/stylize", {"files": {"content": picture_bytes()}, "data": {"alpha": "nan"}}, "alpha: "),
        ("faststyle/stylize", {"files": {"content": picture_bytes()}, "data": {"weights": "inf"}}, "weights"),
        ("faststyle/stylize", {"files": {"content": picture_bytes()}, "data": {"size": 257}}, "up to 256 pixels"),
        ("faststyle/stylize", {"files": {"content": picture_bytes()}, "data": {"style_index": 2}}, "style_index is 2"),
        ("faststyle/stylize", {"files": [("content", b""), *[("style", b"")] * 9]}, "style: 9 pictures; up to 8"),
        ("faststyle/stylize", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, ""),
        ("cut/translate", {"files": {"picture": picture_bytes()}, "data": {"direction": "../b"}}, "direction ../b"),
        ("counting/generate", {"json": {"seed": 13}}, "13 is none of mine"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(client: httpx.Client, path: str, sent: dict, says: str) -> None:
    answer = client.post(f"/models/{path}", **sent)
    assert answer.status_code == 422
    line = answer.json()["detail"]
    assert says in line
    assert "\n" not in line
    assert len(line) < 400
    assert client.get("/health").status_code == 200


def test_only_with_the_token(client: httpx.Client) -> None:
    for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
        given = {"Authorization": header.encode("latin-1")}
        for path in ("/models", "/metrics", "/nothing"):
            assert client.get(path, headers=given).status_code == 401, (header, path)
        answer = client.post("/models/dcgan/generate", json={}, headers=given)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["detail"]
    for path in ("/", "/health", "/docs", "/openapi.json"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200


def test_what_is_too_large_is_refused_whether_it_says_its_size_or_not(client: httpx.Client) -> None:
    said = client.post("/models/faststyle/stylize", files={"content": bytes(300_000)})
    unsaid = client.post("/models/dcgan/generate", content=(bytes(50_000) for _ in range(6)))
    for answer in (said, unsaid):
        assert answer.status_code == 413
        assert "larger than 195.3 KiB" in answer.json()["detail"]


def test_who_sends_slowly_is_not_waited_for(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 20) as slow:
        head = f"POST /models/dcgan/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{".encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_no_other_file_can_be_read(client: httpx.Client) -> None:
    for path in (
        "/../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/static-offline-docs/../core.py",
        "//etc/passwd",
    ):
        for folder in (
            "",
            "/static-offline-docs",
            "/static-offline-docs/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e",
            "/models",
        ):
            with socket.create_connection((client.base_url.host, client.base_url.port or 0), 20) as raw:
                headers = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
                raw.sendall(f"GET {folder}{path} HTTP/1.1\r\n{headers}".encode())
                answer = b"".join(iter(lambda: raw.recv(65_536), b""))
            assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 307")), (folder, path, answer[:60])
            assert b"root:" not in answer
            assert b"FastAPI" not in answer


def test_an_unknown_model_is_404_with_those_that_there_are(client: httpx.Client) -> None:
    answer = client.post("/models/nobody/generate", json={})
    assert answer.status_code == 404
    assert "there are dcgan, faststyle, cut, counting" in answer.json()["detail"]


def test_a_defect_is_one_line_and_the_server_goes_on(client: httpx.Client) -> None:
    answer = client.post("/models/counting/generate", json={"seed": 99})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "unexpected RuntimeError: a defect"}
    assert client.post("/models/counting/generate", json={"seed": 5}).status_code == 200


def test_the_page_and_the_interfaces_description_need_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Links().feed(page.text)
    assert links == ["data:,", "docs"]
    assert not re.search(r"https?://", page.text)
    paths = client.get("/openapi.json").json()["paths"]
    assert {f"/models/{{model}}/{verb}" for verb in ("generate", "stylize", "translate")} <= set(paths)
    documentation = client.get("/docs").text
    for link in re.findall(r'(?:src|href)="([^"]+)"', documentation):
        assert client.get(link, headers={"Authorization": ""}).status_code == 200, link
    assert [each["name"] for each in client.get("/models").json()] == ["dcgan", "faststyle", "cut", "counting"]


def test_prometheus_can_read_the_numbers(client: httpx.Client) -> None:
    client.post("/models/counting/generate", json={"seed": 1})
    assert sample(client, "gesso_requests_total")["counting 200 generate"] >= 1
    assert sample(client, "gesso_requests_under_way")["counting"] == 0
    assert sample(client, "gesso_queue_length")["counting"] == 0
    assert sample(client, "process_resident_memory_bytes")[""] > 1e6


def test_a_full_queue_says_when_to_come_again() -> None:
    model = Counting()
    model.gate.clear()
    with serving([model], queue=3) as client, ThreadPoolExecutor(3) as pool:
        path = "/models/counting/generate"
        held = [pool.submit(client.post, path, json={"seed": seed}) for seed in range(3)]
        end = time.monotonic() + 30
        while sample(client, "gesso_requests_under_way")["counting"] < 3:
            assert time.monotonic() < end
        answer = client.post(path, json={"seed": 3})
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "3 requests are under way already: come again in" in answer.json()["detail"]
        assert client.get("/health").status_code == 200
        model.gate.set()
        assert [pixels(one.result(30).content).item() for one in held] == [0, 1, 2]
        assert client.post(path, json={"seed": 3}).status_code == 200


def test_too_many_requests_for_what_is_not_there_are_told_to_come_again() -> None:
    async def never(scope: dict, receive: object, send: object) -> None:
        raise AssertionError("was let in")

    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    desk = Desk([Counting()], ServeOptions(queue=2))
    try:
        guard = Guard(never, desk.options, desk.models, desk.pace, desk.watch.request)
        guard.under_way[""] = 2
        scope = {"type": "http", "method": "POST", "path": "/models/none/generate", "headers": []}
        asyncio.run(guard(scope, receive, send))
    finally:
        assert desk.close()
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
