"""The sample file."""

import hashlib
from pathlib import Path

import pytest

from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.feeds.data import open_market_data
from trio_nt.feeds.sample import ROWS, write_sample


def test_it_reads_back_as_good_quotes_of_two_shares(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    write_sample(path)
    data = open_market_data([path])
    assert data.instruments.ids == ["ACME", "BOLT"]
    rows = sum(len(block["kind"]) for block in data.blocks())
    assert (rows, data.statistics.messages, data.statistics.flagged) == (ROWS, {"quote": ROWS}, {})


def test_it_is_the_same_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    write_sample(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("0a5d7f0098b72498")


def test_it_overwrites_nothing_but_itself(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    write_sample(path)
    write_sample(path)
    path.write_text("precious")
    with pytest.raises(InputError, match="is not overwritten"):
        write_sample(path)
    assert path.read_text() == "precious"
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_sample(tmp_path / "no folder" / "sample.csv")
