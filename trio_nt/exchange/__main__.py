"""``python -m trio_nt.exchange SETTINGS``: the venue as the child of an engine, which it does not outlive.

``SETTINGS`` is a JSON object of ``ExchangeConfig``'s numbers.
"""

import json
import sys

from trio_nt.errors import TrioNTError
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.process import run_exchange


def main() -> int:
    problems: list[str] = []
    try:
        run_exchange(ExchangeConfig(**json.loads(sys.argv[1])), end_with_stdin=True)
    except* TrioNTError as group:
        problems = [str(error) for error in group.exceptions]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
