# mypy: ignore-errors
"""What numba compiles: the loop over a plan's features and rows, around the same kernels that Python runs.

Importing this module imports numba, which takes a second. (Type checks stop here: numba's types are not Python's.)

The features of a plan are rows of a table; ``drive`` is one function for every plan, so nothing is compiled when a
strategy joins. The machine code is kept on disk by numba, beside this module or, where that cannot be written, in the
user's cache folder: only the first start compiles.
"""

import hashlib
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic

from trio_nt.features import kernels
from trio_nt.features.kernels import averages, deviations, oscillators, quotes, ranges, volumes
from trio_nt.features.specs import Kernel, KernelFunction

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_INLINED = {**_OPTIONS, "forceinline": True}
FIELDS_IN_CALL = 6
PROGRAM_WIDTH = 9
"""Numbers of a feature in the table: opcode, slot, window, base and stride of the state, four input slots."""

_TILE = 64
"""Rows that one feature takes before the next one has its turn: a tile of all features stays in the fastest cache."""


def _with_compiled_helpers(function: Any) -> Any:
    """A copy of ``function`` that calls compiled copies of the Python functions that it uses."""
    helpers = {
        name: njit(_with_compiled_helpers(inner), **_INLINED)
        for name in function.__code__.co_names
        if isinstance(inner := function.__globals__.get(name), FunctionType)
    }
    if not helpers:
        return function
    return FunctionType(function.__code__, {**function.__globals__, **helpers}, function.__name__)


def _compiled(function: KernelFunction) -> Any:
    return njit(_with_compiled_helpers(function), **_INLINED)


_value, _mid, _spread = _compiled(quotes.value), _compiled(quotes.mid), _compiled(quotes.spread)
_microprice, _imbalance, _typical = map(_compiled, (quotes.microprice, quotes.imbalance, quotes.typical))
_sma, _ema, _wma = map(_compiled, (averages.sma, averages.ema, averages.wma))
_dema, _tema, _difference = map(_compiled, (averages.dema, averages.tema, averages.difference))
_cross, _rsi, _roc = map(_compiled, (averages.cross, oscillators.rsi, oscillators.roc))
_stochastic, _williams_r, _cci = map(_compiled, (oscillators.stochastic, oscillators.williams_r, oscillators.cci))
_atr, _plus_di, _minus_di, _adx = map(_compiled, (ranges.atr, ranges.plus_di, ranges.minus_di, ranges.adx))
_rolling_max, _rolling_min = map(_compiled, (ranges.rolling_max, ranges.rolling_min))
_stdev, _band, _zscore = map(_compiled, (deviations.stdev, deviations.band, deviations.zscore))
_realised_volatility = _compiled(deviations.realised_volatility)
_vwap_total, _vwap, _obv, _mfi = map(_compiled, (volumes.vwap_total, volumes.vwap, volumes.obv, volumes.mfi))


@intrinsic
def _pointer(typing_context, array):
    """The address of an array's first element, typed. Indexing it counts no references and knows no negative index:
    on short batches those two cost more than the kernels."""

    def code(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), code


@intrinsic
def _shifted(typing_context, pointer, offset):
    """The address ``offset`` elements further on."""

    def code(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), code


@njit(**_INLINED)
def _take_field(column, slot, kind, corner, fresh, width, kinds, flags):
    if slot >= 0:
        for r in range(width):
            value = column[r]
            corner[slot * width + r] = value
            fresh[slot * width + r] = kinds[r] == kind and flags[r] == 0 and value - value == 0.0


# The rule of a row (see pipeline.py), once per number of inputs.
# numba makes a loop of its own for every kernel that is passed in.


@njit(**_INLINED)
def _rows_of_1(kernel, state, window, factor, fresh, places, count, block, width, program):
    out = program[1] * width
    i0 = program[5] * width
    for r in range(count):
        at = places[r]
        a = block[i0 + r]
        new = fresh[i0 + r]
        if new != 0 and a - a == 0.0:  # neither NaN nor infinite
            state[at] = kernel(state, at + 1, window, factor, a)
            fresh[out + r] = 1
        else:
            fresh[out + r] = 0
        block[out + r] = state[at]


@njit(**_INLINED)
def _rows_of_2(kernel, state, window, factor, fresh, places, count, block, width, program):
    out = program[1] * width
    i0, i1 = program[5] * width, program[6] * width
    for r in range(count):
        at = places[r]
        a, b = block[i0 + r], block[i1 + r]
        new = fresh[i0 + r] | fresh[i1 + r]
        if new != 0 and (a - a) + (b - b) == 0.0:
            state[at] = kernel(state, at + 1, window, factor, a, b)
            fresh[out + r] = 1
        else:
            fresh[out + r] = 0
        block[out + r] = state[at]


@njit(**_INLINED)
def _rows_of_3(kernel, state, window, factor, fresh, places, count, block, width, program):
    out = program[1] * width
    i0, i1, i2 = program[5] * width, program[6] * width, program[7] * width
    for r in range(count):
        at = places[r]
        a, b, c = block[i0 + r], block[i1 + r], block[i2 + r]
        new = fresh[i0 + r] | fresh[i1 + r] | fresh[i2 + r]
        if new != 0 and (a - a) + (b - b) + (c - c) == 0.0:
            state[at] = kernel(state, at + 1, window, factor, a, b, c)
            fresh[out + r] = 1
        else:
            fresh[out + r] = 0
        block[out + r] = state[at]


@njit(**_INLINED)
def _rows_of_4(kernel, state, window, factor, fresh, places, count, block, width, program):
    out = program[1] * width
    i0, i1, i2, i3 = program[5] * width, program[6] * width, program[7] * width, program[8] * width
    for r in range(count):
        at = places[r]
        a, b, c, d = block[i0 + r], block[i1 + r], block[i2 + r], block[i3 + r]
        new = fresh[i0 + r] | fresh[i1 + r] | fresh[i2 + r] | fresh[i3 + r]
        if new != 0 and (a - a) + (b - b) + (c - c) + (d - d) == 0.0:
            state[at] = kernel(state, at + 1, window, factor, a, b, c, d)
            fresh[out + r] = 1
        else:
            fresh[out + r] = 0
        block[out + r] = state[at]


_ROWS_OF = {1: _rows_of_1, 2: _rows_of_2, 3: _rows_of_3, 4: _rows_of_4}


@njit(**_INLINED)
def _events_of_2(kernel, state, window, factor, fresh, places, count, block, width, program):
    out = program[1] * width
    i0, i1 = program[5] * width, program[6] * width
    for r in range(count):
        at = places[r]
        a, b = block[i0 + r], block[i1 + r]
        new = fresh[i0 + r] | fresh[i1 + r]
        if new != 0 and (a - a) + (b - b) == 0.0:
            state[at] = kernel(state, at + 1, window, factor, a, b)
            fresh[out + r] = 1
        else:
            state[at] = 0.0
            fresh[out + r] = 0
        block[out + r] = state[at]


@njit(**_INLINED)
def _run_kernel(state, factor, fresh, places, count, block, width, program):
    opcode, window = program[0], program[2]
    if opcode == 0:
        _rows_of_1(_value, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 1:
        _rows_of_2(_mid, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 2:
        _rows_of_2(_spread, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 3:
        _rows_of_4(_microprice, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 4:
        _rows_of_2(_imbalance, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 5:
        _rows_of_3(_typical, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 6:
        _rows_of_1(_sma, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 7:
        _rows_of_1(_ema, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 8:
        _rows_of_1(_wma, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 9:
        _rows_of_2(_dema, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 10:
        _rows_of_3(_tema, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 11:
        _rows_of_2(_difference, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 12:
        _events_of_2(_cross, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 13:
        _rows_of_1(_rsi, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 14:
        _rows_of_1(_roc, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 15:
        _rows_of_3(_stochastic, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 16:
        _rows_of_3(_williams_r, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 17:
        _rows_of_1(_cci, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 18:
        _rows_of_3(_atr, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 19:
        _rows_of_3(_plus_di, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 20:
        _rows_of_3(_minus_di, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 21:
        _rows_of_3(_adx, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 22:
        _rows_of_1(_rolling_max, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 23:
        _rows_of_1(_rolling_min, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 24:
        _rows_of_1(_stdev, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 25:
        _rows_of_2(_band, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 26:
        _rows_of_3(_zscore, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 27:
        _rows_of_1(_realised_volatility, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 28:
        _rows_of_2(_vwap_total, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 29:
        _rows_of_2(_vwap, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 30:
        _rows_of_2(_obv, state, window, factor, fresh, places, count, block, width, program)
    elif opcode == 31:
        _rows_of_2(_mfi, state, window, factor, fresh, places, count, block, width, program)


def _make_drive(fingerprint: int) -> Any:
    # numba keys its cache on closed-over values: with the kernels' sources among them, code compiled from older
    # kernels is never found again. (It looks at no other file than this one by itself.)
    # Returns the first row whose instrument has no room, having done nothing; or a negative number.
    def drive(programs, factors, state, capacity, block, new, kinds, flags, instruments, slots, f0, f1, f2, f3, f4, f5):
        width = len(kinds)
        for r in range(width):  # nothing below checks an index
            if instruments[r] < 0 or instruments[r] >= capacity:
                return r
        corner, fresh = _pointer(block), _pointer(new)
        _take_field(f0, slots[0], slots[1], corner, fresh, width, kinds, flags)
        _take_field(f1, slots[2], slots[3], corner, fresh, width, kinds, flags)
        _take_field(f2, slots[4], slots[5], corner, fresh, width, kinds, flags)
        _take_field(f3, slots[6], slots[7], corner, fresh, width, kinds, flags)
        _take_field(f4, slots[8], slots[9], corner, fresh, width, kinds, flags)
        _take_field(f5, slots[10], slots[11], corner, fresh, width, kinds, flags)
        places = np.empty(_TILE, np.int64)
        for first in range(0, width, _TILE):
            size = min(_TILE, width - first)
            for k in range(len(factors)):
                program = _shifted(_pointer(programs), k * PROGRAM_WIDTH)
                for r in range(size):
                    places[r] = program[3] + instruments[first + r] * program[4]
                _run_kernel(
                    _pointer(state),
                    factors[k],
                    _shifted(fresh, first),
                    _pointer(places),
                    size,
                    _shifted(corner, first),
                    width,
                    program,
                )
        return -1 if fingerprint else -2

    return drive


def _source_fingerprint() -> int:
    modules = (kernels, averages, deviations, oscillators, quotes, ranges, volumes)
    text = "".join(inspect.getsource(module) for module in modules)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _read_only(dtype: Any) -> Any:
    return types.Array(dtype, 1, "C", readonly=True)


_SIGNATURE = types.int64(
    types.Array(types.int64, 2, "C", readonly=True),
    _read_only(types.float64),
    types.Array(types.float64, 1, "C"),
    types.int64,
    types.Array(types.float64, 2, "C"),
    types.Array(types.uint8, 2, "C"),
    _read_only(types.uint8),
    _read_only(types.uint8),
    _read_only(types.int32),
    _read_only(types.int64),
    *[_read_only(types.float64)] * FIELDS_IN_CALL,
)

_drive: Any = None


def compile_drive(progress: Callable[[str], None] | None = None) -> Any:
    """The driver of the built-in kernels: compiled, or loaded from numba's cache; once per process."""
    global _drive
    if _drive is not None:
        return _drive
    if progress is not None:
        progress("loading compiled features (the first time takes some seconds)")
    drive = njit(cache=True, **_OPTIONS)(_make_drive(_source_fingerprint()))
    drive.compile(_SIGNATURE)
    drive.disable_compile()
    _run_no_rows(drive)
    _drive = drive
    if progress is not None:
        progress("features compiled" if drive.stats.cache_misses else "compiled features loaded")
    return drive


def _run_no_rows(drive: Any) -> None:
    """numba's first look at an array imports all of ``numpy.ma``, some 30 ms: better here than on a running loop."""
    slots = np.full(2 * FIELDS_IN_CALL, -1)
    columns = [
        np.empty(0, np.uint8),
        np.empty(0, np.uint8),
        np.empty(0, np.int32),
        slots,
        *[np.empty(0)] * FIELDS_IN_CALL,
    ]
    program, factors, state = np.empty((0, PROGRAM_WIDTH), np.int64), np.empty(0), np.empty(0)
    for _ in range(2):  # as it has them, writable or not
        drive(program, factors, state, 0, np.empty((0, 0)), np.empty((0, 0), np.uint8), *columns)
        for column in (program, factors, *columns):
            column.flags.writeable = False


_user_drives: WeakKeyDictionary[Kernel, Any] = WeakKeyDictionary()


def compile_kernel(kernel: Kernel) -> Any:
    """The driver around one kernel of the user's: the same source with another ``_run_kernel``, compiled anew.

    Raises:
        TypeError: numba cannot compile the function.
    """
    drive = _user_drives.get(kernel)
    if drive is None:
        step = _compiled(kernel.function)
        rows = _events_of_2 if kernel.is_event else _ROWS_OF[kernel.arity]

        def run_kernel(state, factor, fresh, places, count, block, width, program):
            rows(step, state, program[2], factor, fresh, places, count, block, width, program)

        plain = _make_drive(0)
        globals_ = {**plain.__globals__, "_run_kernel": njit(run_kernel, **_INLINED)}
        copy = FunctionType(plain.__code__, globals_, f"drive_{kernel.name}", None, plain.__closure__)
        drive = njit(**_OPTIONS)(copy)
        try:
            drive.compile(_SIGNATURE)
        except NumbaError as error:
            raise TypeError(
                f"the kernel {kernel.name!r} cannot be compiled: register it with compiles=False. numba says: {error}"
            ) from error
        drive.disable_compile()
        _user_drives[kernel] = drive
    return drive
