"""The files and the line of `git_jax/log.py`."""

import io
import json
import math

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from git_jax import log
from git_jax.log import Log, Tally

SPEED = {"images": 64, "seconds": 0.5, "waited": 0.01}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def take(directory, steps, done=0, **kwargs):
    with Log(directory, steps=10, done=done, stream=io.StringIO(), **kwargs) as out:
        for step in steps:
            out.step(step, {"loss": 1 / step}, **SPEED)
            out.sample(step, id="a/0", caption=f"at {step}", reference="a dog")


def test_numbers_are_written_unrounded(tmp_path):
    loss = np.float32(1) / np.float32(3)
    with Log(tmp_path, steps=10, stream=io.StringIO()) as out:
        out.step(1, {"loss": loss, "bad": {"cut": 2}, "rate": 0.1 + 0.2}, **SPEED)
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert row == {
        "step": 1,
        "loss": float(loss),
        "bad": {"cut": 2},
        "rate": 0.30000000000000004,
        "images_per_second": 128.0,
        "seconds": 0.5,
        "waited": 0.01,
    }


def test_a_number_that_is_not_finite_is_written_as_null(tmp_path):
    with Log(tmp_path, steps=10, stream=io.StringIO()) as out:
        out.step(1, {"loss": math.nan, "norm": math.inf}, **SPEED)
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert row["loss"] is None and row["norm"] is None


def test_a_line_is_on_disk_before_the_next_step(tmp_path):
    with Log(tmp_path, steps=10, stream=io.StringIO()) as out:
        for step in (1, 2, 3):
            out.step(step, {"loss": 1.0}, **SPEED)
            assert rows(tmp_path / "metrics.jsonl")[-1]["step"] == step


@pytest.mark.parametrize("name", ["metrics", "samples"])
@pytest.mark.parametrize("torn", ["", '{"step": 6, "lo', '{"step": 6'])
def test_a_resumed_run_leaves_the_file_of_one_never_killed(tmp_path, name, torn):
    take(tmp_path / "whole", range(1, 9))
    take(tmp_path / "killed", range(1, 6))
    path = tmp_path / "killed" / f"{name}.jsonl"
    with open(path, "a") as file:
        file.write(torn)
    take(tmp_path / "killed", range(4, 9), done=3)
    assert path.read_bytes() == (tmp_path / "whole" / f"{name}.jsonl").read_bytes()


def test_a_kept_row_without_its_end_of_line_stays_a_row_of_its_own(tmp_path):
    take(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    take(tmp_path, [3], done=2)
    assert [row["step"] for row in rows(path)] == [1, 2, 3]


def test_a_run_from_the_start_begins_its_files_anew(tmp_path):
    take(tmp_path, [1, 2, 3])
    take(tmp_path, [1])
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1]


def test_a_spoilt_line_inside_a_file_is_named(tmp_path):
    take(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    before = "spoilt\n" + path.read_text()
    path.write_text(before)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: b'spoilt.*delete"):
        take(tmp_path, [3], done=2)
    assert path.read_text() == before


def test_other_hosts_write_nothing(tmp_path):
    stream = io.StringIO()
    with Log(tmp_path / "run", steps=10, main=False, stream=stream) as out:
        out.step(1, {"loss": 1.0}, **SPEED)
        out.sample(1, id="a", caption="b", reference="c")
        out.message("hello")
    assert not (tmp_path / "run").exists() and not stream.getvalue()


def test_a_finished_run_keeps_what_it_ran_on(tmp_path):
    take(tmp_path, [10], done=9, devices="8 x TPU")
    path = tmp_path / "environment.json"
    before = path.read_text()
    assert json.loads(before)["devices"] == "8 x TPU"
    take(tmp_path, [], done=10, devices="1 x CPU")
    assert path.read_text() == before


def test_tensorboard_gets_every_number(tmp_path):
    with Log(tmp_path, steps=10, stream=io.StringIO()) as out:
        out.step(7, {"loss": 0.5, "bad": {"cut": 2}}, **SPEED)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    data = path.read_bytes()
    while data:  # a record: u64 length, u32 check, the event, u32 check
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        found |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        data = data[16 + size :]
    assert found["loss"] == (7, 0.5) and found["bad/cut"] == (7, 2.0)
    assert found["images_per_second"] == (7, 128.0)


def test_a_pipe_gets_a_line_every_ten_seconds(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    with Log(tmp_path, steps=100, stream=stream) as out:
        for step in range(1, 26):
            out.step(step, {"loss": 2.0}, **SPEED)
            now += 1.0
            if step == 5:
                out.message("saved")
    assert stream.getvalue().splitlines() == [
        "compiling the step ...",
        "step   1/100     1 %   loss 2.000   128 images/s   data 2 %   -:-- left",
        "saved",
        "step  11/100    11 %   loss 2.000   128 images/s   data 2 %   1:29 left",
        "step  21/100    21 %   loss 2.000   128 images/s   data 2 %   1:19 left",
        "step  25/100    25 %   loss 2.000   128 images/s   data 2 %   1:18 left",
    ]


def test_a_terminal_gets_one_line_that_messages_leave_whole(tmp_path):
    stream = Terminal()
    with Log(tmp_path, steps=4, done=2, stream=stream) as out:
        out.step(3, {"loss": 2.0}, **SPEED)
        out.message("[saved] step 3")
        out.step(4, {"loss": 1.0}, **SPEED)
    shown = stream.getvalue()
    assert "[saved] step 3\n" in shown
    assert shown.rstrip().rpartition("4/4")[2].count("loss 1.500") == 1
    assert shown.count("going on from step 2\n") == 1
    assert "compiling the step ..." in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize(
    ("done", "lines"),
    [
        (0, ["compiling the step ..."]),
        (3, ["going on from step 3", "compiling the step ..."]),
        (4, []),
    ],
)
def test_a_start_says_what_it_does(tmp_path, done, lines):
    stream = io.StringIO()
    Log(tmp_path, steps=4, done=done, stream=stream).close()
    assert stream.getvalue().splitlines() == lines


def test_a_terminal_sees_how_far_the_scoring_is(tmp_path):
    stream = Terminal()
    with Log(tmp_path, steps=1, stream=stream) as out:
        out.step(1, {"loss": 2.0}, **SPEED)
        out.count("test", 300, 1000)
        out.message("test: CIDEr 2 :dog:")
    shown = stream.getvalue()
    assert "test: 300/1,000 pictures" in shown and "test: CIDEr 2 :dog:\n" in shown
    assert "loss 2.000" in shown.rpartition("1/1")[2]  # the line as it was


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_tally_is_for_a_terminal_and_its_messages_for_all(kind):
    stream = kind()
    with Tally(stream) as out:
        out.count("test", 300, 1000)
        out.message("[test] " + 50 * "long ")
    shown = stream.getvalue()
    if stream.isatty():
        assert "test" in shown and "300/1000" in shown
        assert "[test] " + 50 * "long " + "\n" in shown
    else:
        assert shown == "[test] " + 50 * "long " + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (200.4, "3:20"), (3725, "1:02:05"), (100000, "1 d 3:46:40")],
)
def test_clock(seconds, text):
    assert log.clock(seconds) == text
