"""What the engine and a strategy's author rely on: names, rows, batches, errors."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from features_support import all_specs, bar_rows, decay, market_rows, middle_of_window, part, quotes, run

from trio_nt.features import (
    FeaturePipeline,
    FeatureSpec,
    apply,
    bollinger,
    cross,
    dema,
    ema,
    field,
    kernel,
    macd,
    mid,
    rsi,
    sma,
    stochastic,
    vwap,
)
from trio_nt.model.market import BAR, QUOTE, TRADE, empty_columns


@pytest.fixture(params=[False, True], ids=["interpreted", "compiled"])
def pipeline(request: pytest.FixtureRequest) -> FeaturePipeline:
    pipeline = FeaturePipeline(1)
    if request.param:
        assert pipeline.prepare()
    return pipeline


def values(pipeline: FeaturePipeline, rows, spec: FeatureSpec) -> list[float]:
    pipeline.require([spec])
    return pipeline.compute(rows)[spec].tolist()


def test_the_cross_of_the_contract(pipeline: FeaturePipeline) -> None:
    assert values(pipeline, quotes([10, 9, 8, 12, 7]), cross(ema(2), ema(3))) == [0, 0, 0, 1, -1]


def test_an_event_is_said_once(pipeline: FeaturePipeline) -> None:
    rows = quotes([10, 9, 8, 12, 12, 12, 7])
    rows["kind"][4] = TRADE
    rows["bid"][4] = rows["ask"][4] = np.nan
    rows["price"][4] = 1.0
    rows["flags"][5] = 1
    assert values(pipeline, rows, cross(ema(2), ema(3))) == [0, 0, 0, 1, 0, 0, -1]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([1, 2, 3], [0, 0, 1]),  # through equality: on the row where the sign has changed
        ([3, 2, 3], [0, 0, 0]),  # a touch
        ([1, 2, 1], [0, 0, 0]),
        ([3, 2, 1], [0, 0, -1]),
        ([2, 3, 1], [0, 0, -1]),  # the first strict side is a beginning
        ([1, 3, 1], [0, 1, -1]),
    ],
)
def test_ties_of_a_cross(pipeline: FeaturePipeline, first: list[float], expected: list[float]) -> None:
    rows = quotes([0, 0, 0])
    rows["bid"][:] = first
    rows["ask"][:] = 2
    assert values(pipeline, rows, cross("bid", "ask")) == expected


def test_rows_that_do_not_update_repeat_the_instruments_last_value(pipeline: FeaturePipeline) -> None:
    rows = quotes([1, 10, 3, 99, 30, np.nan, np.inf, 5], [0, 1, 0, 0, 1, 0, 0, 0])
    rows["kind"][3] = TRADE
    rows["flags"][4] = 4
    nan = np.nan
    expected = [nan, nan, 2, 2, nan, 2, 2, 4]
    assert np.array_equal(values(pipeline, rows, sma(2)), expected, equal_nan=True)


def test_a_bar_feature_is_seen_on_quotes(pipeline: FeaturePipeline) -> None:
    spec = sma(2, on="bar")
    pipeline.require([spec])
    bars = bar_rows(3, 1)
    last = pipeline.compute(bars)[spec][-1]
    assert pipeline.compute(quotes([1, 2]))[spec].tolist() == [last, last]


def test_bad_rows_of_real_flags_and_all_kinds_absent(pipeline: FeaturePipeline) -> None:
    rows = quotes([1, 2, 3])
    rows["flags"][:] = 1
    assert np.isnan(values(pipeline, rows, mid())).all()


def test_equal_specs_are_computed_once() -> None:
    pipeline = FeaturePipeline(1)
    pipeline.require([ema(10), ema(10), dema(10), bollinger(20), bollinger(20).upper, sma(20)])
    statistics = pipeline.statistics()
    assert (statistics.requests, statistics.features) == (6, 5 - 1)
    # mid, ema, ema of ema, dema, sma, stdev, upper
    assert statistics.nodes == 7


def test_equality_is_of_the_numbers() -> None:
    assert ema(10) == ema(np.int64(10)) == ema(10, on="mid") == ema(10, on=mid())
    assert hash(ema(10)) == hash(ema(10, on="mid"))
    assert ema(10) != ema(11)
    assert ema(10) != ema(10, on="trade")
    assert bollinger(20) == sma(20)
    assert macd(12, 26, 9) == macd(12, 26, 5)  # the line does not depend on the signal's window
    assert macd(12, 26, 9).signal != macd(12, 26, 5).signal
    assert apply(middle_of_window, 3) == apply(middle_of_window, 3)
    assert apply(middle_of_window, 3) != apply(np.median, 3)
    assert ema(10) != "ema(10)"


@pytest.mark.parametrize("on", ["quote", "trade", "bar"])
def test_specs_survive_pickling(on: str) -> None:
    for spec in all_specs(3, on).values():
        if spec.kernel.name != "decay":  # a decorated function cannot be found again by its name
            assert pickle.loads(pickle.dumps(spec)) == spec


def test_specs_say_how_they_are_written() -> None:
    assert str(ema(10)) == repr(ema(10)) == "ema(10)"
    assert str(macd(on="bar").signal) == "macd(12, 26, 9, on='bar').signal"
    assert str(cross(ema(2), sma(3, on=rsi(4)))) == "cross(ema(2), sma(3, on=rsi(4)))"
    assert str(stochastic().d) == "stochastic(14, 3, 3).d"
    assert str(decay(20)) == "decay(20, mid())"


def test_out_is_written_and_results_are_own_arrays_without_it(pipeline: FeaturePipeline) -> None:
    specs = [ema(2), sma(3)]
    pipeline.require(specs)
    first = pipeline.compute(quotes([1, 2, 3]))
    kept = first[specs[0]].copy()
    ring = {spec: np.zeros(8) for spec in specs}
    result = pipeline.compute(quotes([4, 5]), {spec: column[3:5] for spec, column in ring.items()})
    assert np.array_equal(first[specs[0]], kept, equal_nan=True)
    for spec in specs:
        assert np.array_equal(ring[spec][3:5], result[spec])
        assert not ring[spec][[0, 1, 2, 5, 6, 7]].any()
    with pytest.raises(KeyError, match=r"ema\(9\) was not required"):
        pipeline.compute(quotes([4]), {ema(9): np.zeros(1)})


def test_values_are_a_mapping(pipeline: FeaturePipeline) -> None:
    pipeline.require([ema(2), sma(3)])
    result = pipeline.compute(quotes([1, 2, 3]))
    assert list(result) == [ema(2), sma(3)]
    assert len(result) == 2
    assert ema(2) in result
    assert result[ema(2)].shape == (3,)
    assert result[ema(2)].dtype == np.float64
    with pytest.raises(KeyError, match=r"ema\(9\)"):
        result[ema(9)]


def test_readiness(pipeline: FeaturePipeline) -> None:
    spec = cross(ema(2), sma(3))
    pipeline.require([spec, sma(3)])
    result = pipeline.compute(quotes([1, 2, 3, 4]))
    assert result.ready(spec).tolist() == result.ready(sma(3)).tolist() == [False, False, True, True]
    assert not np.isnan(result[spec]).any()


def test_a_spec_that_joins_starts_its_warm_up_then(pipeline: FeaturePipeline) -> None:
    pipeline.require([sma(2)])
    pipeline.compute(quotes([1, 2, 3]))
    pipeline.require([sma(2), sma(3)])
    result = pipeline.compute(quotes([4, 5, 6]))
    assert result[sma(2)].tolist() == [3.5, 4.5, 5.5]
    assert np.array_equal(result[sma(3)], [np.nan, np.nan, 5.0], equal_nan=True)


def test_instruments_may_grow(pipeline: FeaturePipeline) -> None:
    pipeline.require([sma(2)])
    pipeline.compute(quotes([1, 2]))
    result = pipeline.compute(quotes([3, 10, 20], [0, 77, 77]))
    assert np.array_equal(result[sma(2)], [2.5, np.nan, 15.0], equal_nan=True)
    assert pipeline.instrument_count >= 78
    with pytest.raises(ValueError, match="index must be at least 0, was -1"):
        pipeline.compute(quotes([1], [-1]))


def test_compiling_in_mid_run_changes_nothing() -> None:
    rows = market_rows(400, 3)
    specs = all_specs(4, "quote")
    expected = run(rows, specs, compiled=False)
    pipeline = FeaturePipeline()
    pipeline.require(specs.values())
    before = pipeline.compute(part(rows, 0, 150))
    said: list[str] = []
    assert pipeline.prepare(said.append)
    assert pipeline.prepare()
    after = pipeline.compute(part(rows, 150, 400))
    for name, spec in specs.items():
        assert np.array_equal(np.concatenate([before[spec], after[spec]]), expected[name], equal_nan=True), name


def test_other_dtypes_and_strides_give_the_same(pipeline: FeaturePipeline) -> None:
    rows = market_rows(60, 5)
    strange = {name: np.repeat(column, 2)[::2] for name, column in rows.items()}
    strange["instrument"] = strange["instrument"].astype(np.int64)
    strange["bid"] = strange["bid"].astype(object).astype(np.float64)[::-1][::-1]
    for column in rows.values():
        column.flags.writeable = False
    spec = ema(3)
    pipeline.require([spec])
    got = pipeline.compute(strange)[spec]
    assert np.array_equal(got, run(rows, {"": spec}, compiled=False)[""], equal_nan=True)


def test_a_pipeline_without_specs_and_an_empty_batch(pipeline: FeaturePipeline) -> None:
    assert dict(pipeline.compute(quotes([1, 2]))) == {}
    pipeline.require([ema(2)])
    assert pipeline.compute(quotes([]))[ema(2)].shape == (0,)


def test_reset_forgets_the_rows_and_keeps_the_specs(pipeline: FeaturePipeline) -> None:
    specs = all_specs(3, "bar")
    rows = bar_rows(40, 1)
    pipeline.require(specs.values())
    first = pipeline.compute(rows)
    pipeline.reset()
    again = pipeline.compute(rows)
    for name, spec in specs.items():
        assert np.array_equal(first[spec], again[spec], equal_nan=True), name


def test_latest_and_statistics(pipeline: FeaturePipeline) -> None:
    spec = sma(2)
    pipeline.require([spec, spec])
    assert np.isnan(pipeline.latest[spec]).all()
    pipeline.compute(quotes([1, 3, 10, 20], [0, 0, 1, 1]))
    assert pipeline.latest[spec].tolist()[:2] == [2, 15]
    statistics = pipeline.statistics()
    assert (statistics.batches, statistics.rows, statistics.values, statistics.requests) == (1, 4, 4, 2)
    assert statistics.compiled is pipeline.compiled
    assert statistics.state_bytes == 8 * pipeline.instrument_count * (1 + 1 + 6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ema(0), ValueError, "window must be at least 1, was 0"),
        (lambda: ema(-3), ValueError, "window must be at least 1, was -3"),
        (lambda: ema(2.5), TypeError, "window must be a whole number, was 2.5"),
        (lambda: ema("10"), TypeError, "window must be a whole number, was '10'"),
        (lambda: ema(3, on="qoute"), ValueError, "on must be one of quote, .* was 'qoute'"),
        (lambda: ema(3, on=7), TypeError, "on must be a string or a FeatureSpec, was 7"),
        (lambda: field("bids"), ValueError, "a field must be one of bid, .* was 'bids'"),
        (lambda: vwap(3, on="quote"), ValueError, "on must be 'trade' or 'bar'"),
        (lambda: macd(26, 12), ValueError, r"fast must be below slow \(12\), was 26"),
        (lambda: macd(12, 26, 0), ValueError, "signal must be at least 1, was 0"),
        (lambda: bollinger(20, 0), ValueError, "width must be above 0 and finite, was 0"),
        (lambda: decay(3, on=("bid", "ask")), ValueError, "decay must have 1 inputs in on, had 2"),
        (lambda: kernel()(lambda state, at: 0.0), ValueError, "must take state, at, window, factor and 1 to 4 inputs"),
        (lambda: kernel(state=-1), ValueError, "state must be at least 0, was -1"),
        (lambda: kernel(event=True)(lambda s, a, w, f, x: 0.0), ValueError, "an event must take 2 inputs"),
        (lambda: FeaturePipeline(-1), ValueError, "instrument_count must be at least 0"),
        (lambda: FeaturePipeline().require(["ema(10)"]), TypeError, "must be a FeatureSpec such as ema"),
        (
            lambda: FeaturePipeline(longest_window=50).require([sma(51)]),
            ValueError,
            "at most 50 rows, the history, was 51",
        ),
        (lambda: FeaturePipeline(longest_window=50).require([cross(mid(), ema(51))]), ValueError, "was 51"),
        (
            lambda: FeaturePipeline(fields=["bid", "ask"]).require([ema(3, on="bar")]),
            ValueError,
            r"ema\(3, on='bar'\) needs the field 'close', which the data does not have; it has bid, ask",
        ),
    ],
)
def test_mistakes_are_named_before_the_run(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_refused_spec_leaves_the_pipeline_as_it_was() -> None:
    pipeline = FeaturePipeline(longest_window=50)
    with pytest.raises(ValueError, match="was 51"):
        pipeline.require([sma(3), sma(51)])
    assert list(pipeline.plan) == []


def test_a_kernel_that_cannot_be_compiled_is_named() -> None:
    @kernel()
    def strange(state, at, window, factor, price):
        return complex(str(price)).real

    pipeline = FeaturePipeline(1)
    pipeline.prepare()
    with pytest.raises(TypeError, match="'strange' cannot be compiled: register it with compiles=False"):
        pipeline.require([strange(1)])
    assert list(pipeline.plan) == []
    interpreted = FeaturePipeline(1)
    interpreted.require([strange(1)])
    assert interpreted.compute(quotes([2.0]))[strange(1)].tolist() == [2.0]


def test_importing_features_stays_cheap() -> None:
    code = (
        "import sys, trio_nt.features as f; p = f.FeaturePipeline(1); p.require([f.ema(3)]);"
        "print([m for m in ('numba', 'polars', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_numba_everything_runs_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("trio_nt.features.machine", "trio_nt.features.comp"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    pipeline = FeaturePipeline(1)
    assert not pipeline.prepare()
    assert values(pipeline, quotes([1, 3]), sma(2))[1] == 2


def test_kinds_are_the_models() -> None:
    rows = empty_columns(3)
    rows["kind"][:] = [QUOTE, TRADE, BAR]
    rows["price"][:] = 5.0
    assert values(FeaturePipeline(1), rows, field("price"))[1] == 5.0


def test_the_shared_specs_use_every_kernel() -> None:
    """What the tests say of every feature, they say of all of them."""
    from trio_nt.features import FeaturePlan
    from trio_nt.features.table import KERNELS

    plan = FeaturePlan(spec for on in ("quote", "trade", "bar") for spec in all_specs(3, on).values())
    assert {node.kernel.name for node in plan.nodes} >= set(KERNELS)


@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gap_leaves_no_trace_in_any_feature(compiled: bool, bad: float) -> None:
    """Rows of numbers that are none repeat the last value, and the rows after them are as if they had not been."""
    rows = bar_rows(60, 4)
    gaps = np.array([0, 1, 7, 8, 9, 30, 59])
    whole = {name: np.insert(column, gaps - np.arange(len(gaps)), column[0]) for name, column in rows.items()}
    for name in ("open", "high", "low", "close", "volume"):
        whole[name][gaps] = bad
    good = np.setdiff1d(np.arange(67), gaps)
    specs = all_specs(4, "bar")
    expected, got = run(rows, specs, compiled=compiled), run(whole, specs, compiled=compiled)
    for name, spec in specs.items():
        assert np.array_equal(got[name][good], expected[name], equal_nan=True), name
        carried = np.zeros(7) if spec.kernel.is_event else np.concatenate([[np.nan] * 2, got[name][gaps[2:] - 1]])
        assert np.array_equal(got[name][gaps], carried, equal_nan=True), name


def test_the_last_value_of_one_instrument(pipeline: FeaturePipeline) -> None:
    specs = [sma(2), ema(3), cross(ema(2), ema(3))]
    pipeline.require(specs)
    assert np.isnan(pipeline.last(0, specs[0]))
    values_ = pipeline.compute(quotes([1, 3, 10, 20, 30], [0, 0, 1, 1, 1]))
    for spec in specs:
        assert pipeline.last(1, spec) == values_[spec][-1] == pipeline.latest[spec][1]
    assert pipeline.last(0, specs[0]) == 2
    assert np.isnan(pipeline.last(99, specs[0]))
    assert pipeline.last(99, specs[2]) == 0
    with pytest.raises(KeyError, match="was not required"):
        pipeline.last(0, sma(9))
