"""What can go wrong outside our own code, each raised with its cause (``raise … from``).

A caller's mistake is a ``ValueError`` or ``TypeError``; a refusal is a value (``Refused``), never an exception.
"""


class TrioNTError(Exception):
    """The root of this library's own errors."""


class InputError(TrioNTError):
    """Something the user gave is wrong: a file, a line, a key, a value. The message names it. Exit code 2."""


class InvalidStrategy(InputError, ValueError):
    """A strategy asks for what cannot be had, such as a feature of a field that the data does not have."""


class EnvironmentFailure(TrioNTError):
    """The machine or network refuses: a port in use, a folder that cannot be written. Exit code 1."""


class FeedError(TrioNTError):
    """A market-data source broke."""


class ExecutionError(TrioNTError):
    """A broker could not be reached or answered something that has no meaning."""


class JournalError(TrioNTError):
    """Orders cannot be recorded, so none may be sent."""


class OpenLoopError(TrioNTError):
    """A strategy with ``open_loop = True`` read a position, an order or a fill."""


class OutcomeUnknown(ExecutionError):
    """A request left and no answer came: whether it took effect is not known."""


class OrderRejected(ExecutionError):
    """The broker refused a request; nothing took effect."""


class DuplicateOrder(OrderRejected):
    """The broker knows this client order id already: the order arrived before."""
