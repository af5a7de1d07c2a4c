"""What a strategy raised, in words: one line for the summary, the whole traceback for whoever looks for the cause."""

import traceback
from pathlib import Path


def in_one_line(error: BaseException) -> str:
    """The error and where it was raised: ``ZeroDivisionError: division by zero (my_strategy.py, line 12)``."""
    error = _only(error)
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def with_traceback(error: BaseException) -> str:
    """The error as Python shows it, its causes included."""
    return "".join(traceback.format_exception(_only(error)))


def _only(error: BaseException) -> BaseException:
    """The one error in nested groups, where there is only one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
