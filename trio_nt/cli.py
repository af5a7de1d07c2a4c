"""The command line's entry: errors become one line and an exit code. Imports the standard library alone.

Exit codes: 0 done (also when interrupted once), 1 the machine, the network or a check failed, 2 something the user gave
is wrong, 130 interrupted twice.
"""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; ``arguments`` default to the process's. Returns the exit code."""
    from trio_nt.errors import TrioNTError

    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except TrioNTError as error:
        return _say([error])
    except BaseExceptionGroup as group:
        expected, others = group.split(TrioNTError)
        if others is not None or expected is None:
            raise
        return _say(_leaves(expected))


def _run(arguments: list[str]) -> int:
    import cyclopts

    from trio_nt.commands import app
    from trio_nt.errors import InputError

    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        raise InputError(" ".join(str(error).split())) from error
    return code if isinstance(code, int) else 0


def _say(errors: Sequence[BaseException]) -> int:
    from trio_nt.errors import InputError

    for error in errors:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"trio-nt: error: {text}", file=sys.stderr)  # noqa: T201 - the one place that speaks for errors
    return 2 if all(isinstance(error, InputError) for error in errors) else 1


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


if __name__ == "__main__":
    raise SystemExit(main())
