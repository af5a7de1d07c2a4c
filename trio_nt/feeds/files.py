"""Text files, plain or gzip, as lists of lines: large chunks, line numbers, and errors that name file and line."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trio_nt.errors import InputError

READ_BYTES = 1 << 18
# One step of decompression never gives more than this, however well a file is packed.
TEXT_BYTES = 1 << 21
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's own name for "a gzip header, the largest window"


def line_chunks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Number of the first line (from 1) and consecutive lines without their newline, chunk after chunk.

    Raises:
        InputError: the file is missing or unreadable, or its gzip is truncated or damaged; what could be read
            before that place was given already. The message names the file and the last line read.
    """
    number, rest = 1, b""
    try:
        with path.open("rb") as file:
            for text in _texts(file):
                lines = (rest + text).split(b"\n")
                rest = lines.pop()
                if lines:
                    yield number, lines
                    number += len(lines)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except EOFError as error:
        raise InputError(f"{path}: truncated gzip, it ends in the middle after line {number - 1:,}") from error
    except zlib.error as error:
        raise InputError(f"{path}: damaged gzip after line {number - 1:,} ({error})") from error
    if rest:
        yield number, [rest]


def _texts(file: BinaryIO) -> Iterator[bytes]:
    data = file.read(READ_BYTES)
    if not data.startswith(_GZIP_MAGIC):
        while data:
            yield data
            data = file.read(READ_BYTES)
        return
    unpack = zlib.decompressobj(_GZIP_WINDOW)
    while data:
        if unpack.eof:  # another member follows, or zeros that pad the last one
            data = data.lstrip(b"\0")
            if not data:
                data = file.read(READ_BYTES)
                continue
            unpack = zlib.decompressobj(_GZIP_WINDOW)
        text = unpack.decompress(data, TEXT_BYTES)
        if text:
            yield text
        data = unpack.unused_data or unpack.unconsumed_tail or file.read(READ_BYTES)
    if not unpack.eof:
        raise EOFError
