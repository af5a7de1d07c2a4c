"""Each fault over a real socket: that it happens, and what the broker adapter makes of it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.errors import DuplicateOrder, ExecutionError, InputError, OutcomeUnknown
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.faults import Faults, FaultSettings, read_faults
from trio_nt.exchange.market import venue_instruments
from trio_nt.exchange.server import serve_exchange
from trio_nt.execution.alpaca import AlpacaBroker, open_alpaca
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import OrderRequest, UpdateKind

KEYS = {"APCA-API-KEY-ID": "sim", "APCA-API-SECRET-KEY": "sim"}
KINDS = ("drop_request", "drop_response", "duplicate", "reorder", "error", "rate_limit", "reset")


@asynccontextmanager
async def broker(*, timeout_s: float = 5.0, max_wait_s: float = 5.0, **faults: object) -> AsyncIterator[AlpacaBroker]:
    """The adapter, before a venue with faults."""
    settings = FaultSettings(**({"silence_s": 0.05} | faults))  # type: ignore[arg-type]
    config = ExchangeConfig(events_per_second=1_000, faults=settings)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        url = f"http://127.0.0.1:{port}"
        async with open_alpaca(
            url,
            venue_instruments(),
            unix_s=time.time,
            key="sim",
            secret="sim",
            timeout_s=timeout_s,
            max_wait_s=max_wait_s,
        ) as opened:
            yield opened
        nursery.cancel_scope.cancel()


def buy(key: str) -> OrderRequest:
    return OrderRequest(key, "ALBA", Side.BUY, Decimal(10))


def rest(key: str) -> OrderRequest:
    return OrderRequest(key, "ALBA", Side.BUY, Decimal(10), OrderType.LIMIT, Decimal(1), None, TimeInForce.GTC)


async def held(opened: AlpacaBroker) -> Decimal:
    return (await opened.positions()).get("ALBA", Decimal(0))


async def test_a_dropped_request_is_an_unknown_outcome_and_did_not_arrive():
    async with broker(drop_request=1, methods=["POST"]) as opened:
        with pytest.raises(OutcomeUnknown):
            await opened.submit(buy("a"))
        assert await opened.find("a") is None


@pytest.mark.parametrize("kind", ["drop_response", "reset"])
async def test_a_lost_answer_is_an_unknown_outcome_and_the_order_is_found(kind):
    async with broker(**{kind: 1}, methods=["POST"]) as opened:
        for key in "abcd":
            with pytest.raises(OutcomeUnknown):
                await opened.submit(buy(key))
            found = await opened.find(key)
            assert found is not None
            assert found.filled_quantity == 10
        assert await held(opened) == 40  # nothing was sent twice


async def test_a_request_that_arrives_twice_makes_one_order():
    answers = set()
    async with broker(duplicate=1, methods=["POST"]) as opened:
        for number in range(8):
            try:
                await opened.submit(buy(f"o{number}"))
                answers.add("accepted")
            except DuplicateOrder:
                answers.add("duplicate")
        assert answers == {"accepted", "duplicate"}
        assert await held(opened) == 80


async def test_a_server_error_leaves_the_outcome_unknown_either_way():
    effects = set()
    async with broker(error=1, methods=["POST"]) as opened:
        for number in range(8):
            with pytest.raises(OutcomeUnknown, match="answered 50"):
                await opened.submit(buy(f"o{number}"))
            effects.add(await opened.find(f"o{number}") is not None)
    assert effects == {True, False}


@pytest.mark.parametrize("kind", ["error", "reset", "drop_request", "drop_response"])
async def test_what_only_looks_is_asked_again(kind):
    async with broker(**{kind: 0.3}, methods=["GET"], seed=1) as opened:
        for _ in range(5):
            assert await held(opened) == 0
        await opened.submit(buy("a"))
        assert await held(opened) == 10


async def test_a_cancel_without_an_answer_is_unknown_and_can_be_repeated():
    async with broker(drop_response=1, methods=["DELETE"]) as opened:
        await opened.submit(rest("a"))
        with pytest.raises(OutcomeUnknown):
            await opened.cancel("a")
        found = await opened.find("a")
        assert found is not None
        assert found.state.value == "cancelled"


async def test_a_replace_without_an_answer_is_unknown_and_the_book_shows_it():
    async with broker(reset=1, methods=["PATCH"]) as opened:
        await opened.submit(rest("a"))
        with pytest.raises(OutcomeUnknown):
            await opened.replace("a", quantity=Decimal(12))
        found = await opened.find("a")
        assert found is not None
        assert found.quantity == 12


async def test_a_rate_limit_is_waited_for_no_longer_than_allowed():
    async with broker(rate_limit=1, rate_limit_s=30, methods=["POST"], max_wait_s=0.5) as opened:
        with pytest.raises(ExecutionError, match="rate limit asks to wait") as caught:
            await opened.submit(buy("a"))
        assert not isinstance(caught.value, OutcomeUnknown)
        with pytest.raises(ExecutionError, match="rate limit"):
            await opened.find("a")  # the headers speak of every request


@pytest.mark.slow
async def test_after_a_rate_limit_the_request_is_sent_again_when_the_headers_allow():
    async with broker(rate_limit=0.5, rate_limit_s=0.1, methods=["POST"], seed=4) as opened:
        for key in "abc":
            await opened.submit(buy(key))
        assert await held(opened) == 30


async def test_a_request_that_is_late_arrives_after_its_sender_gave_up():
    async with broker(delay=1, delay_s=0.4, methods=["POST"], timeout_s=0.02, seed=2) as opened:
        with pytest.raises(OutcomeUnknown):
            await opened.submit(buy("a"))
    async with broker(delay=1, delay_s=0.4, methods=["POST"], seed=2) as opened:
        assert (await opened.submit(buy("a"))).filled_quantity == 10


async def test_a_request_is_overtaken_by_a_later_one():
    async with broker(reorder=1, delay_s=30, methods=["POST"]) as opened, trio.open_nursery() as nursery:
        done: list[str] = []

        async def submit() -> None:
            await opened.submit(buy("a"))
            done.append("order")

        nursery.start_soon(submit)
        while "order" not in done:
            await opened.positions()
            done.append("look")
            await trio.sleep(0.01)
        assert done[0] == "look"


# -- streams --


async def heard(opened: AlpacaBroker, orders: int, most: int) -> list[tuple[str, UpdateKind]]:
    """What the update stream tells of so many orders, until there is no more to expect or it breaks."""
    told: list[tuple[str, UpdateKind]] = []
    async with opened.updates() as receiver:
        for number in range(orders):
            await opened.submit(buy(f"o{number}"))
        with trio.move_on_after(10):
            while len(told) < most:
                told += [(update.client_order_id, update.kind) for update in await receiver.receive()]
    return told


IN_ORDER = [(f"o{number}", kind) for number in range(5) for kind in (UpdateKind.ACCEPTED, UpdateKind.FILLED)]


async def test_a_stream_repeats():
    async with broker(stream_duplicate=1) as opened:
        told = await heard(opened, 5, 20)
    assert told == [update for update in IN_ORDER for _ in range(2)]


async def test_a_stream_changes_the_order_and_loses_nothing():
    async with broker(stream_reorder=1) as opened:
        told = await heard(opened, 5, 10)
    assert sorted(told, key=IN_ORDER.index) == IN_ORDER
    assert told != IN_ORDER


async def test_a_slow_stream_comes_to_its_end():
    async with broker(stream_slow=1, slow_s=0.01) as opened:
        assert await heard(opened, 5, 10) == IN_ORDER


async def test_a_stream_that_breaks_says_so():
    async with broker(disconnect=0.3, seed=3) as opened:
        broke = 0
        for _ in range(20):
            try:
                await heard(opened, 1, 2)
            except (trio.BrokenResourceError, trio.EndOfChannel, ExecutionError):
                broke += 1
            if broke == 3:
                break
        assert broke == 3


async def test_without_faults_nothing_stands_between():
    async with broker() as opened:
        assert await heard(opened, 5, 10) == IN_ORDER


# -- the decisions --

shares = st.dictionaries(st.sampled_from(KINDS), st.floats(0, 0.14))


@given(shares, st.integers(0, 100))
def test_the_same_seed_decides_the_same(kinds, seed):
    def story() -> list[object]:
        faults = Faults(FaultSettings(seed=seed, delay=0.5, **kinds))
        return [faults.of_request("POST") for _ in range(50)]

    assert story() == story()
    assert {fault.kind.value for fault in story() if fault.kind} <= {kind for kind, share in kinds.items() if share}


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_is_kept_and_methods_that_are_not_named_are_spared(kind):
    faults = Faults(FaultSettings(**{kind: 0.2}, methods=["POST"]))
    found = [faults.of_request("POST").kind for _ in range(5_000)]
    assert 900 < sum(fault is not None for fault in found) < 1_100
    assert all(faults.of_request("GET").kind is None for _ in range(100))


@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=6), max_size=6),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 50),
)
def test_a_stream_that_does_not_break_loses_nothing(batches, twice, swapped, seed):
    stream = Faults(FaultSettings(seed=seed, stream_duplicate=twice, stream_reorder=swapped)).of_stream()
    for batch in batches:
        sent = [delivery.message for delivery in stream.of_messages(batch)]
        assert None not in sent
        assert set(sent) == set(batch)
        assert len(sent) >= len(batch)


def test_after_a_break_a_stream_sends_nothing_more():
    stream = Faults(FaultSettings(disconnect=1)).of_stream()
    assert [delivery.message for delivery in stream.of_messages([b"a", b"b"])] == [None]
    assert stream.of_messages([b"c"]) == []


# -- settings --


def test_faults_are_read_in_line_and_from_a_file(tmp_path: Path):
    wanted = FaultSettings(drop_response=0.1, error=0.05, seed=3)
    assert read_faults("drop_response=0.1, error=0.05,seed=3") == wanted
    file = tmp_path / "faults.toml"
    file.write_text('seed = 3\ndrop_response = 0.1\nerror = 0.05\nmethods = ["POST", "PATCH", "DELETE", "GET"]\n')
    assert read_faults(str(file)) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("odd=1", "--faults: unknown fault 'odd'"),
        ("error=much", "--faults: error must be a number, was 'much'"),
        ("error=1.5", "--faults: 'error' must be <= 1"),
        ("error=0.6,reset=0.6", "must not add up to more than 1"),
        ("nowhere.toml", "--faults: nowhere.toml"),
    ],
)
def test_a_wrong_setting_is_named(text, why):
    with pytest.raises(InputError, match=why):
        read_faults(text)


def test_a_wrong_line_in_a_file_is_named(tmp_path: Path):
    file = tmp_path / "faults.toml"
    for content, why in (
        ("error = 'x'", "error must be a number"),
        ("methods = ['PUT']", "methods must be of POST"),
        ("methods = 'POST'", "methods must be a list"),
        ("error = true", "error must be a number"),
        ("error =", "faults.toml"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=why):
            read_faults(str(file))


async def test_a_faulty_venue_answers_a_client_of_another_make():
    config = ExchangeConfig(events_per_second=1_000, faults=FaultSettings(rate_limit=1, rate_limit_s=5))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=KEYS, trust_env=False) as client:
            answer = await client.get("/v2/account")
            assert (answer.status_code, answer.json()["code"]) == (429, 42910000)
            assert answer.headers["X-RateLimit-Remaining"] == "0"
            assert int(answer.headers["X-RateLimit-Reset"]) > time.time()
        nursery.cancel_scope.cancel()
