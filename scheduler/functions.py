"""What may be started as a task: an async function, checked before anything happens."""

import collections.abc
import functools
import inspect
from types import CoroutineType, FunctionType, MethodType
from typing import Any


def checked_async_fn(async_fn: object) -> None:
    """Refuse what surely is no async function, without calling it.

    A ``def`` that returns a coroutine cannot be told from a mistake; wrap it in a lambda or an ``async def``.
    Callables of other kinds (lambdas, builtins, objects) are judged by what they return, as Trio does.

    Raises:
        TypeError: a coroutine object, something not callable, or a plain ``def``.
    """
    if type(async_fn) is FunctionType and async_fn.__code__.co_flags & inspect.CO_COROUTINE:
        return
    if isinstance(async_fn, collections.abc.Coroutine):
        async_fn.close()
        raise TypeError(
            f"async_fn must be an async function, was the coroutine object {_shown(async_fn)}: leave out (...)"
        )
    if not callable(async_fn):
        raise TypeError(f"async_fn must be an async function, was {async_fn!r}")
    function: Any = async_fn
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, (FunctionType, MethodType)) and not _may_be_async(function):
        raise TypeError(f"async_fn must be an async function, {_shown(function)} is a synchronous one")


def checked_sync_fn(sync_fn: object) -> None:
    """Refuse what surely is no synchronous function, without calling it.

    Raises:
        TypeError: something not callable, or an async function.
    """
    if not callable(sync_fn):
        raise TypeError(f"sync_fn must be callable, was {sync_fn!r}")
    if inspect.iscoroutinefunction(sync_fn):
        raise TypeError(f"sync_fn must be a synchronous function, {_shown(sync_fn)} is an async one")


def checked_sync_result(result: object, sync_fn: object) -> None:
    """Refuse a coroutine that ``sync_fn`` returned: it would never be awaited.

    Raises:
        TypeError: it is one.
    """
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError(f"sync_fn must be a synchronous function, {_shown(sync_fn)} returned a coroutine")


def checked_coroutine(result: object, async_fn: object) -> None:
    """Refuse what ``async_fn`` returned if it is no coroutine.

    Raises:
        TypeError: it is not.
    """
    if type(result) is CoroutineType or isinstance(result, collections.abc.Coroutine):
        return
    hint = "; it is an async generator" if inspect.isasyncgen(result) else ""
    raise TypeError(f"async_fn must be an async function, {_shown(async_fn)} returned {result!r}{hint}")


def task_name(async_fn: object, name: object) -> str:
    """The name Trio would give the task."""
    named: Any = async_fn if name is None else name
    if isinstance(named, str):
        return named
    if isinstance(named, functools.partial):
        named = named.func
    try:
        return f"{named.__module__}.{named.__qualname__}"
    except AttributeError:
        return repr(named)


def _may_be_async(function: FunctionType | MethodType) -> bool:
    if function.__name__ == "<lambda>" or inspect.iscoroutinefunction(function):
        return True
    wrapped = inspect.unwrap(function)
    return wrapped is not function and (not isinstance(wrapped, FunctionType) or inspect.iscoroutinefunction(wrapped))


def _shown(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
