"""The exchange checks itself: a book kept from its depth messages has the best bid and ask of the quotes read here.

Start from the snapshot, apply the diffs by the exchange's rule (drop those up to the snapshot's id; each goes on where
the one before ended). After the diff with final id u, the book's best price and size on both sides are those of the
last quote whose id is at most u. The quotes are this library's rows; only their ids come from the file.
"""

import gzip
import json
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trio_nt.feeds.data import open_market_data
from trio_nt.model.market import QUOTE

FILES = ["cm_btcusd_perp_20240808", "spot_btcusdt_20240808", "spot_ethusdt_20240808", "usdm_btcusdt_20240808"]
Level = tuple[float, float]


class BookSide:
    """Sizes by price, and the prices in order."""

    def __init__(self, levels: Iterable[tuple[str, str]]) -> None:
        self._sizes: dict[float, float] = {}
        self._prices: list[float] = []
        self.apply(levels)

    def apply(self, levels: Iterable[tuple[str, str]]) -> None:
        for price_text, size_text in levels:
            price, size = float(price_text), float(size_text)
            if size and price not in self._sizes:
                insort(self._prices, price)
            if size:
                self._sizes[price] = size
            elif self._sizes.pop(price, None) is not None:
                del self._prices[bisect_left(self._prices, price)]

    def level(self, index: int) -> Level:
        price = self._prices[index]
        return price, self._sizes[price]


def books(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[int, Level, Level]]:
    """After each diff that the snapshot does not hold already: its final id, best bid, best ask."""
    (snapshot,) = (message for message in messages if "lastUpdateId" in message)
    diffs = [message["data"] for message in messages if "@depth" in message.get("stream", "")]
    bids, asks = BookSide(snapshot["bids"]), BookSide(snapshot["asks"])
    last, synchronised = snapshot["lastUpdateId"], False
    for diff in diffs:
        if diff["u"] <= last:
            continue
        if synchronised:
            assert diff["pu"] == last if "pu" in diff else diff["U"] == last + 1, f"a gap after {last}"
        else:
            assert diff["U"] <= last + 1, f"the diffs start after the snapshot {last}"
        last, synchronised = diff["u"], True
        bids.apply(diff["b"])
        asks.apply(diff["a"])
        yield last, bids.level(-1), asks.level(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_book_s_best_is_the_last_quote(shared_data: Path, name: str) -> None:
    path = shared_data / "binance_ws_raw" / f"{name}.jsonl.gz"
    messages = [json.loads(line.partition(b" ")[2]) for line in gzip.decompress(path.read_bytes()).splitlines()]
    ids = [message["data"]["u"] for message in messages if "@bookTicker" in message.get("stream", "")]
    assert ids == sorted(ids)
    blocks = list(open_market_data([path]).blocks())
    quotes = np.concatenate([block["kind"] == QUOTE for block in blocks])
    best = [
        np.concatenate([block[side] for block in blocks])[quotes] for side in ("bid", "bid_size", "ask", "ask_size")
    ]
    assert len(best[0]) == len(ids)
    compared = 0
    for update, bid, ask in books(messages):
        row = bisect_right(ids, update) - 1
        if row < 0:
            continue
        assert (*bid, *ask) == tuple(column[row] for column in best), f"after the diff up to {update}"
        compared += 1
    assert compared > 3_000
