"""A CSV file of quotes to try things on: invented, and the same bytes every time."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from trio_nt.errors import EnvironmentFailure, InputError

ROWS = 4_000
_START = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)  # a Tuesday, when the New York session opens
_INTERVAL = timedelta(milliseconds=125)
_SEED = 7
# Name, first mid price in cents, quotes per wave, height of a wave in cents.
_SHARES = (("ACME", 10_000, 400, 60.0), ("BOLT", 2_500, 640, 25.0))


def sample_text(rows: int = ROWS) -> str:
    """Quotes of two shares in turn, prices on the cent: waves with a random walk on them, so that averages cross."""
    # The generator's raw bits stay the same from one NumPy to the next; its distributions need not.
    bits = np.random.PCG64(_SEED).random_raw(rows).tolist()
    walk = [0 for _ in _SHARES]
    lines = ["time,instrument,bid,ask,bid_size,ask_size"]
    for row, random in enumerate(bits):
        share = row % len(_SHARES)
        name, start, period, height = _SHARES[share]
        walk[share] += random % 5 - 2
        wave = height * math.sin(2 * math.pi * (row // len(_SHARES)) / period)
        bid = start + walk[share] + round(wave)
        ask = bid + 1 + (random >> 8) % 3
        sizes = [100 * (1 + (random >> shift) % 9) for shift in (16, 24)]
        time = (_START + row * _INTERVAL).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines.append(f"{time},{name},{bid / 100:.2f},{ask / 100:.2f},{sizes[0]},{sizes[1]}")
    return "\n".join(lines) + "\n"


def write_sample(path: Path | str) -> None:
    """Write the sample; a file that is the sample already is left as it is.

    Raises:
        InputError: there is another file of this name; nothing is overwritten.
        EnvironmentFailure: the file cannot be written.
    """
    path = Path(path)
    data = sample_text().encode()
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        if not path.is_file() or path.read_bytes() != data:
            raise InputError(f"{path}: exists already and is not overwritten") from None
    except OSError as error:
        raise EnvironmentFailure(f"{path}: cannot be written ({error.strerror or error})") from error
