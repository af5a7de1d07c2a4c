"""Which address a broker's name stands for, and whose keys open it: keys leave this machine for no other address."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from trio_nt.errors import InputError
from trio_nt.execution.alpaca import KEY_VARIABLE, LIVE_URL, PAPER_URL, SECRET_VARIABLE

SIMULATED_KEY = "sim"
URLS: Mapping[str, str] = {"alpaca-paper": PAPER_URL, "alpaca-live": LIVE_URL}


def keys_for(url: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Key and secret for an address: of a simulated venue on this machine, or the environment's for a broker.

    Raises:
        InputError: the address is none of a broker's that we know, or the environment has no keys.
    """
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return SIMULATED_KEY, SIMULATED_KEY
    if url not in URLS.values():
        raise InputError(f"{url or 'no address'} is no broker that trio-nt has keys for")
    key, secret = environment.get(KEY_VARIABLE), environment.get(SECRET_VARIABLE)
    if not key or not secret:
        raise InputError(f"{url} needs its keys in {KEY_VARIABLE} and {SECRET_VARIABLE}")
    return key, secret
