"""For every feature: any split gives the same, a row knows nothing of later rows, batch is streaming, machine code is
Python."""

import numpy as np
from features_support import all_specs, bar_rows, market_rows, part, run
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.features import FeatureCache, FeatureSpec, MarketHistory, compute, cross, difference, ema, sma

ROWS = 60


def specs_of(window: int, kind: str) -> dict[str, FeatureSpec]:
    if kind == "bar":
        return all_specs(window, "bar")
    specs = {f"{name} on {on}": spec for on in ("quote", "trade") for name, spec in all_specs(window, on).items()}
    return specs | {
        "of both": difference(ema(window, "quote"), sma(window, "trade")),
        "cross of both": cross(ema(2, "quote"), "price"),
    }


def rows_of(kind: str, seed: int, broken: float) -> dict[str, np.ndarray]:
    return bar_rows(ROWS, seed, 2, broken=broken) if kind == "bar" else market_rows(ROWS, seed, 2, broken=broken)


def assert_same(first, second, until: int = ROWS) -> None:
    for name in first:
        assert np.array_equal(first[name][:until], second[name][:until], equal_nan=True), name


windows = st.integers(1, 6)
kinds = st.sampled_from(["market", "bar"])
seeds = st.integers(0, 10_000)
shares = st.sampled_from([0.0, 0.2])
cuts = st.lists(st.integers(0, ROWS), max_size=8)


@given(windows, kinds, seeds, shares, cuts)
def test_any_split_gives_the_same_and_machine_code_agrees_with_python(window, kind, seed, broken, cuts) -> None:
    rows, specs = rows_of(kind, seed, broken), specs_of(window, kind)
    whole = run(rows, specs, compiled=False)
    assert_same(whole, run(rows, specs, compiled=True))
    assert_same(whole, run(rows, specs, compiled=True, cuts=cuts))
    assert_same(whole, run(rows, specs, compiled=False, cuts=cuts))


@given(windows, kinds, seeds, shares, st.integers(1, ROWS - 1))
def test_no_row_knows_a_later_one(window, kind, seed, broken, stop) -> None:
    """Everything after a row is cut off, or replaced by something else: the row stays as it was."""
    rows, specs = rows_of(kind, seed, broken), specs_of(window, kind)
    whole = run(rows, specs, compiled=True)
    assert_same(whole, run(part(rows, 0, stop), specs, compiled=True), stop)
    other = rows_of(kind, seed + 1, broken)
    changed = {name: np.concatenate([column[:stop], other[name][stop:]]) for name, column in rows.items()}
    assert_same(whole, run(changed, specs, compiled=True), stop)


@given(windows, kinds, seeds, shares, cuts)
def test_batch_is_streaming(window, kind, seed, broken, cuts) -> None:
    rows, specs = rows_of(kind, seed, broken), specs_of(window, kind)
    streamed = run(rows, specs, compiled=False, cuts=cuts)
    batch = compute(rows, specs.values())
    assert_same(streamed, {name: batch[spec] for name, spec in specs.items()})


@given(windows, kinds, seeds, shares)
def test_instruments_do_not_meet(window, kind, seed, broken) -> None:
    rows, specs = rows_of(kind, seed, broken), specs_of(window, kind)
    together = run(rows, specs, compiled=True)
    for instrument in (0, 1):
        mine = rows["instrument"] == instrument
        alone = run({name: column[mine] for name, column in rows.items()}, specs, compiled=True)
        for name in specs:
            assert np.array_equal(together[name][mine], alone[name], equal_nan=True), name


@given(st.integers(1, 7), seeds, cuts, st.integers(1, 7))
def test_a_history_holds_the_last_rows_of_each_instrument(depth, seed, cuts, wanted) -> None:
    rows = market_rows(ROWS, seed, 3)
    history = MarketHistory(depth, fields={"sequence": "i8", "bid": "f8"})
    spec = ema(2)
    cache = FeatureCache(rows=depth, limit_bytes=2 * 16 * depth)
    for instrument in (0, 2):
        cache.last(instrument, spec, 1)
    start = 0
    for end in [*sorted(cuts), ROWS]:
        batch = part(rows, start, end)
        history.append(batch)
        cache.append(batch["instrument"], {spec: batch["sequence"].astype(float)})
        start = end
        for instrument in range(3):
            mine = np.flatnonzero(rows["instrument"][:end] == instrument)
            count = min(wanted, depth)
            if history.seen(instrument) if instrument < len(history) else 0:
                assert history.frame(instrument, count)["sequence"].tolist() == mine[-count:].tolist()
            if instrument != 1:
                assert cache.last(instrument, spec, count).tolist() == mine[-count:].tolist()


@given(st.integers(1, 8), st.integers(0, 20), st.integers(1, 8), st.integers(0, 20))
def test_a_frame_stays_intact_as_long_as_it_says(depth, before, rows, further) -> None:
    history = MarketHistory(depth, fields={"x": "i8"})

    def add(start: int, stop: int) -> None:
        for value in range(start, stop):
            history.append({"instrument": np.zeros(1, np.int32), "x": np.array([value])})

    add(0, before)
    frame = history.frame(0, min(rows, depth))
    view = frame["x"]
    kept = view.copy()
    add(before, before + further)
    assert frame.intact == (further <= depth - frame.rows)
    if frame.intact:
        assert np.array_equal(view, kept)
    elif frame.rows:
        assert not np.array_equal(view, kept)
