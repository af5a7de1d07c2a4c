"""States of strategies: from what they return to a file and back, whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.storage.states import StateFolder, open_state_folder
from trio_nt.strategies.states import decode_state, encode_state

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@given(st.binary(max_size=50) | st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_a_state_comes_back_as_it_was(state: Any) -> None:
    assert decode_state(encode_state(state)) == state


@pytest.mark.parametrize("state", [3, "text", [1], {1: 2}, {"a": {1, 2}}, {"a": object()}])
def test_what_cannot_be_kept_is_refused(state: Any) -> None:
    with pytest.raises(TypeError):
        encode_state(state)


@pytest.mark.parametrize("kept", [b"", b"x{}", b"j{", b"j\xff"])
def test_what_was_no_state_is_no_state(kept: bytes) -> None:
    with pytest.raises(InputError, match="the saved state cannot be read"):
        decode_state(kept)


def test_every_strategy_has_its_file(tmp_path: Path) -> None:
    names = ["a", "b", "A", "../a", "a/b", ".", "..", "ä b", "a%2Fb", "lock", "x" * 60]
    with open_state_folder(tmp_path / "deep" / "folder") as folder:
        assert [folder.load(name) for name in names] == [None] * len(names)
        for name in names:
            folder.save(name, b"old")
            folder.save(name, name.encode())
    with open_state_folder(tmp_path / "deep" / "folder") as folder:
        assert [folder.load(name) for name in names] == [name.encode() for name in names]
    assert {path.parent for path in tmp_path.rglob("*.state")} == {tmp_path / "deep" / "folder"}
    assert not list(tmp_path.rglob("*.new"))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_breaks_off_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = StateFolder(tmp_path)
    folder.save("a", b"old")

    def fail(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(EnvironmentFailure, match=r"a\.state: No space left on device"):
        folder.save("a", b"new")
    monkeypatch.undo()
    assert folder.load("a") == b"old"
    folder.save("a", b"newer")
    assert folder.load("a") == b"newer"


def test_a_state_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), sync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda path, other: (done.append("replace"), replace(path, other)))
    StateFolder(tmp_path).save("a", b"state")
    assert done == ["sync", "replace", "sync"]


@pytest.mark.slow
@given(place=st.integers(0, 60), bit=st.integers(0, 7), length=st.integers(0, 60))
def test_a_damaged_file_is_recognised(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, length: int
) -> None:
    folder = StateFolder(tmp_path_factory.getbasetemp())
    folder.save("a", b"a state of some length")
    path = folder.folder / "a.state"
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.state: "):
        folder.load("a")
    path.write_bytes(content[: length % len(content)])
    with pytest.raises(InputError, match=r"a\.state: "):
        folder.load("a")


def test_one_engine_at_a_time(tmp_path: Path) -> None:
    with (
        open_state_folder(tmp_path),
        pytest.raises(EnvironmentFailure, match="in use by another engine"),
        open_state_folder(tmp_path),
    ):
        pass
    with open_state_folder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match="file"), open_state_folder(tmp_path / "file" / "below"):
        pass
