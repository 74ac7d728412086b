"""A file is whole or not there."""

import os
import pathlib

import pytest

from git_jax.file import write


def test_a_write_that_is_cut_short_leaves_what_was_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "scores.json"
    write(path, b"first")
    write(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == [path.name]

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write(path, b"third")
    assert path.read_bytes() == b"second"
