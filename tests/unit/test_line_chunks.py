"""Lines out of plain and gzip files."""

import gzip
from pathlib import Path

import pytest

from trio_nt.errors import InputError
from trio_nt.feeds import files
from trio_nt.feeds.files import line_chunks

LINES = [b"line %d %s" % (number, b"x" * (number % 50)) for number in range(1, 500)]
TEXT = b"\n".join(LINES) + b"\n"


def read(path: Path) -> list[bytes]:
    lines: list[bytes] = []
    for number, chunk in line_chunks(path):
        assert number == len(lines) + 1
        lines += chunk
    return lines


@pytest.fixture(params=[(1 << 18, 1 << 21), (64, 128), (2, 1)], ids=["large", "small", "tiny"])
def _chunk_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_BYTES", request.param[0])
    monkeypatch.setattr(files, "TEXT_BYTES", request.param[1])


@pytest.mark.usefixtures("_chunk_sizes")
@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        TEXT[:-1],
        gzip.compress(TEXT),
        gzip.compress(TEXT[:-1]),
        gzip.compress(TEXT[:777]) + gzip.compress(b"") + gzip.compress(TEXT[777:]),
        gzip.compress(TEXT) + b"\0" * 1000,
    ],
    ids=["plain", "no last newline", "gzip", "gzip, no last newline", "members", "padded"],
)
def test_every_line_comes_once_with_its_number(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert read(path) == LINES


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.gz: No such file"):
        read(tmp_path / "absent.gz")


def test_a_truncated_gzip_gives_what_it_holds_and_then_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(TEXT)[:-9])
    chunks = line_chunks(path)
    _, lines = next(chunks)
    assert lines == LINES[: len(lines)]
    assert len(lines) > 400
    with pytest.raises(InputError, match=rf"cut\.gz: truncated gzip, it ends in the middle after line {len(lines)}$"):
        next(chunks)


def test_a_gzip_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    data = gzip.compress(b"one\ntwo\nthree\nfour and five and six and seven\n")
    path = tmp_path / "cut.gz"
    for length in range(2, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.gz: truncated gzip"):
            read(path)


def test_a_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[-6] ^= 0xFF  # the checksum
    path = tmp_path / "bad.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.gz: damaged gzip"):
        read(path)


def test_one_step_never_unpacks_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(b"\n" * (1 << 24)))
    assert max(len(lines) for _, lines in line_chunks(path)) <= files.TEXT_BYTES
