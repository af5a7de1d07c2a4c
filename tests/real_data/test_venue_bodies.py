"""Bodies from a collection of valid and broken JSON: the venue answers each in its own words and takes no order."""

import json
from pathlib import Path

import pytest

from trio_nt.exchange.api import Api, Request
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.venue import Venue

KEYS = {"apca-api-key-id": "sim", "apca-api-secret-key": "sim"}


@pytest.fixture
def bodies(shared_data: Path) -> list[tuple[str, bytes]]:
    folder = shared_data / "conformance" / "json"
    if not folder.is_dir():
        pytest.skip(f"needs the JSON conformance files in {folder}")
    return [(file.name, file.read_bytes()) for file in sorted(folder.glob("*.json"))]


def test_every_body_is_refused_and_what_is_no_json_is_called_so(bodies):
    venue = Venue(ExchangeConfig(), lambda: 1_700_000_000_000_000_000)
    api = Api(venue)
    assert len(bodies) > 50
    for name, body in bodies:
        for method, path in (("POST", "/v2/orders"), ("PATCH", "/v2/orders/none")):
            response = api.handle(Request(method, path, KEYS, body))
            told = json.loads(response.body)
            assert response.status in ((400, 422) if method == "POST" else (404,)), (name, response)
            assert told["code"] // 100_000 in (400, 404, 422), name
            assert told["message"], name
        if name.startswith("n_"):
            # What breaks off before its end is no JSON; other mistakes may show only as a wrong shape.
            assert api.handle(Request("POST", "/v2/orders", KEYS, body)).status in (400, 422), name
    assert not venue.exchange.orders


def test_a_broken_value_inside_an_order_is_refused(bodies):
    """Each file's content as the value of one field, in an order that is good otherwise."""
    venue = Venue(ExchangeConfig(), lambda: 1_700_000_000_000_000_000)
    api = Api(venue)
    for name, body in bodies:
        if name.startswith("n_"):
            content = b'{"symbol":"ALBA","side":"buy","type":"market","time_in_force":"day","qty":1,"x":' + body + b"}"
            response = api.handle(Request("POST", "/v2/orders", KEYS, content))
            if response.status == 200:  # it became valid where it stands: a comma or a brace that closes
                json.loads(content)
            else:
                assert response.status in (400, 422), name
