"""Bad records are counted, kept in a file, and too many of them end a run."""

import json
import pathlib

import pytest

from git_jax.data.bad_records import Bad, BadRecords

ODD = [Bad("a", "odd", "a is odd")]


def test_too_many_bad_records_end_the_run(tmp_path: pathlib.Path) -> None:
    bad = BadRecords(tmp_path / "bad.jsonl", 0.01, 10**6)
    bad.add(1, ODD * 100, 64)  # 1 % of the first 10,000, whatever was seen
    with pytest.raises(ValueError) as caught:
        bad.add(2, [Bad("b", "worse", "far")], 64)
    message = str(caught.value)
    assert message.startswith(
        "2 records could not be read, met 101 times in 128 rows, more than "
    )
    assert "loader.bad_fraction=0.01 of 10,000 rows" in message
    assert "1 x odd (a; the first: a is odd); 1 x worse (b; the first: far)" in message
    assert "bad.jsonl" in message
    assert bad.counts == {"odd": 100, "worse": 1}


def test_the_fraction_is_of_the_rows_seen(tmp_path: pathlib.Path) -> None:
    bad = BadRecords(tmp_path / "bad.jsonl", 0.1, population=20)
    bad.add(1, ODD * 2, 8)
    with pytest.raises(ValueError, match="^1 record could .*, met 3 times in 16 rows"):
        bad.add(2, ODD, 8)
    bad = BadRecords(tmp_path / "bad.jsonl", 0.1, population=20)
    bad.add(1, [], 1000)
    bad.add(2, ODD * 100, 8)
    with pytest.raises(ValueError):
        bad.add(3, ODD, 1)
    with pytest.raises(ValueError, match="^1 record .* met 1 time in 8 rows, more"):
        BadRecords(tmp_path / "bad.jsonl", 0.0, 10**6).add(1, ODD, 8)
    BadRecords(tmp_path / "bad.jsonl", 1.0, 1).add(1, ODD * 8, 8)


def test_each_bad_record_is_a_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad = BadRecords(path, 1.0, 100)
    bad.add(1, [], 4)
    assert not path.exists()
    bad.add(2, ODD, 4)
    bad.add(5, [Bad("ü", "worse", "☃")], 4)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"step": 2, "id": "a", "reason": "odd", "detail": "a is odd"},
        {"step": 5, "id": "ü", "reason": "worse", "detail": "☃"},
    ]


def test_the_first_of_a_run_is_told(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad = BadRecords(path, 1.0, 100)
    assert bad.add(1, [], 4) is None
    told = bad.add(2, [Bad("a", "odd", "a is odd"), Bad("b", "odd", "b is")], 4)
    assert told is not None and "\n" not in told
    assert told.startswith("a cannot be read") and "odd: a is odd" in told
    assert str(path) in told
    assert bad.add(3, ODD, 4) is None
    again = BadRecords(path, 1.0, 100)
    again.resume(3, rows=8)
    assert again.add(3, ODD, 4) is None


def test_a_resumed_count_is_that_of_a_run_never_stopped(tmp_path: pathlib.Path) -> None:
    steps = [ODD * (step % 3) for step in range(12)]
    whole = BadRecords(tmp_path / "whole", 1.0, 10)
    for step, bad in enumerate(steps):
        whole.add(step, bad, 4)
    killed = BadRecords(tmp_path / "killed", 1.0, 10)
    for step in range(9):
        killed.add(step, steps[step], 4)
    with open(tmp_path / "killed", "a") as file:
        file.write('{"step": 9, "id": "half a li')
    again = BadRecords(tmp_path / "killed", 1.0, 10)
    again.resume(5, rows=20)
    for step in range(5, 12):
        again.add(step, steps[step], 4)
    assert again.counts == whole.counts
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    fresh = BadRecords(tmp_path / "none", 1.0, 10)
    fresh.resume(0, rows=0)
    assert fresh.counts == {} and not (tmp_path / "none").exists()
