"""``python -m trio_nt.exchange SETTINGS``: the venue as the child of an engine, which it does not outlive.

``SETTINGS`` is a JSON object of ``ExchangeConfig``'s numbers, ``state`` (a folder), ``faults`` (an object), and
``core``: the one to run on, or null.
"""

import json
import sys

from scheduler import pin_thread
from trio_nt.errors import TrioNTError
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.faults import fault_settings
from trio_nt.exchange.process import run_exchange


def main() -> int:
    problems: list[str] = []
    try:
        settings = json.loads(sys.argv[1])
        core = settings.pop("core", None)
        if core is not None:
            pin_thread([core])
        if "faults" in settings:
            settings["faults"] = fault_settings(settings["faults"], "faults")
        run_exchange(ExchangeConfig(**settings), end_with_stdin=True)
    except* TrioNTError as group:
        problems = [str(error) for error in group.exceptions]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
