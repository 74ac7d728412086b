"""Scores from a shell: of files alone, and of a run on the devices that are there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from git_jax import evaluate
from git_jax.config import build, spec
from git_jax.data.scenes import Scenes
from git_jax.data.source import Excerpt
from git_jax.decode.search import Sample
from git_jax.evaluate import Evaluation, Evaluator
from git_jax.run import Run
from git_jax.sharding import Layout
from git_jax.trained import Trained
from tests import walls

COCO = Path(__file__).parents[2] / "shared/data/coco_caption"
NAMES = ["BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L", "CIDEr"]


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Captions of two pictures, and their references."""
    said = {"1": "A dog runs!", "2": "two men ride"}
    known = {"2": ["two men ride a horse"], "1": ["a dog runs", "the dog is running."]}
    return write(tmp_path / "p.json", said), write(tmp_path / "r.json", known)


def test_a_shell_gets_scores_as_json_and_nothing_else(pair: tuple[Path, Path]) -> None:
    predictions, references = pair
    done = walls.shell(
        "evaluate",
        f"--predictions={predictions}",
        f"--references={references}",
        "--task=caption",
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert sorted(scores) == sorted(NAMES)
    assert scores["BLEU_1"] == pytest.approx(2.718281828 ** (1 - 8 / 6))


@pytest.mark.parametrize("name", ["A_fakecap126", "B_human1000"])
def test_published_tokens_get_their_published_scores(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not COCO.is_dir():
        pytest.skip(f"the reference's scores are not here: no {COCO}")
    tokens = json.loads((COCO / f"expected_{name}.json").read_text())
    expected = json.loads((COCO / "expected_scores.json").read_text())[name]
    main(
        predictions=write(tmp_path / "p.json", tokens["tok_cands"]),
        references=write(tmp_path / "r.json", tokens["tok_refs"]),
        tokens=True,
    )
    scores = json.loads(capsys.readouterr().out)
    for key in NAMES:
        assert scores[key] == pytest.approx(
            expected[key.replace("BLEU", "Bleu")], abs=1e-6
        )


def main(**given: Any) -> None:
    """The command in this process, with these flags."""
    flags = dict(run=None, predictions=None, references=None, tokens=False)
    flags |= {k: v if isinstance(v, bool) else str(v) for k, v in given.items()}
    evaluate.main(walls.options(**flags))


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"predictions": "p.json"},
        {"references": "r.json"},
        {"run": "runs/a", "predictions": "p.json", "references": "r.json"},
        {"run": "runs/a", "references": "r.json"},
    ],
    ids=lambda flags: "+".join(flags) or "none",
)
def test_either_a_run_or_two_files(flags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"either --run=DIR, or --predictions=FILE"):
        main(**flags)


BAD = {
    "no JSON": ("predictions", "{'1': 'a dog'}", r"p\.json is not JSON.*\{id: caption"),
    "a list": ("predictions", [1, 2], r"p\.json holds \[1, 2\]; write \{id: caption\}"),
    "a number": ("predictions", {"1": 3, "2": "b"}, r"p\.json: '1' has 3, not one cap"),
    "an id left out": (
        "predictions",
        {"1": "a"},
        r"p\.json.*the id '2' is without a c",
    ),
    "an id too many": (
        "predictions",
        {"1": "a", "2": "b", "3": "c"},
        r"p\.json.*the id '3' is with a caption and without references",
    ),
    "twice": ("predictions", '{"1": "a", "1": "b"}', r"p\.json: '1' is there twice"),
    "one text": (
        "references",
        {"1": "a", "2": ["b"]},
        r"r\.json: '1' has \"a\", not a",
    ),
    "no text": ("references", {"1": [], "2": ["b"]}, r"r\.json.*'1' is with an empty"),
    "nothing": ("references", {}, r"r\.json.*nothing to score"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_no_captions_are_named(
    case: str, pair: tuple[Path, Path]
) -> None:
    which, content, message = BAD[case]
    predictions, references = pair
    write(predictions if which == "predictions" else references, content)
    with pytest.raises(ValueError, match=message):
        main(predictions=predictions, references=references)


def test_files_that_cannot_be_read_are_named(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"nope\.json cannot be read: No such file"):
        main(predictions=tmp_path / "nope.json", references=pair[1])
    pair[1].write_bytes('{"1": ["café"]}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"r\.json is not UTF-8"):
        main(predictions=pair[0], references=pair[1])


def test_a_shell_is_told_in_one_line(tmp_path: Path) -> None:
    done = walls.shell("evaluate", f"--run={tmp_path / 'nope'}")
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.strip() == f"error: --run={tmp_path}/nope: there is no such folder"
    )


# A run ------------------------------------------------------------------------------


def test_a_run_of_eight_devices_is_scored_on_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(walls.run(), run)
    before = json.loads((run / "scores.json").read_text())
    (run / "scores.json").unlink()
    (run / "report.html").write_text("of an earlier step")
    done = walls.shell("evaluate", f"--run={run}")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores == json.loads((run / "scores.json").read_text())
    assert list(scores) == ["train"] and scores["train"]["step"] == 60
    assert "4 pictures it was trained on, after step 60" in (
        (run / "report.html").read_text()
    )
    for name, value in before["train"].items():
        assert scores["train"][name] == pytest.approx(value), name
    assert scores["train"]["CIDEr"] > scores["train"]["CIDEr_constant"] > 0


def test_other_ways_to_score_are_printed_and_not_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(walls.run(), run)
    kept = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    flag = "--config.evaluate.examples=2"
    done = walls.shell("evaluate", f"--run={run}", flag)
    assert json.loads(done.stdout)["train"]["examples"] == 2
    assert "not kept in the run, as evaluate.examples: None -> 2" in done.stderr
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == kept


@pytest.mark.parametrize("flags", [["--tokens"], ["--config.seed=1"]])
def test_flags_that_would_do_nothing_are_refused(
    pair: tuple[Path, Path], flags: list[str]
) -> None:
    files = (f"--predictions={pair[0]}", f"--references={pair[1]}")
    given = [f"--run={walls.run()}"] if flags == ["--tokens"] else files
    done = walls.shell("evaluate", *given, *flags)
    assert done.returncode == 1 and "go" in done.stderr and not done.stdout


@pytest.fixture(scope="module")
def trained() -> Trained:
    """The run on one device: what is compiled for eight takes longer."""
    opened = Trained.open(str(walls.run()), walls.options())
    return replace(opened, mesh=Layout().mesh(jax.devices()[:1]))


def evaluator(trained: Trained, **changes: Any) -> Evaluator:
    """Of the run with changed fields, `evaluator(trained, evaluate__batch=3)`."""
    config = trained.config.copy_and_resolve_references()
    with config.unlocked():
        for path, value in changes.items():
            node, _, last = path.rpartition("__")
            (config[node] if node else config)[last] = value
    return Evaluator(build(config), trained.tokenizer, trained.mesh)


def score(trained: Trained, to: Path, **changes: Any) -> dict[str, dict[str, float]]:
    """What `evaluator` scores; scores and predictions are kept in a folder."""
    shutil.copytree(walls.run(), to)
    found = evaluator(trained, **changes)
    return found.score(trained.parameters(), Run(to), lambda _: None, step=4)


def said(run: Path) -> dict[str, str]:
    """{id: caption}, as kept."""
    lines = (run / "predictions/train.jsonl").read_text().splitlines()
    return {row["id"]: row["caption"] for row in map(json.loads, lines)}


def test_what_is_drawn_for_a_record_is_its_own(
    trained: Trained, tmp_path: Path
) -> None:
    """Whatever the batch, and whichever of the others can be read; by the seed."""
    sample = spec(Sample, max_tokens=walls.TEXT - 1, temperature=3.0)
    data = tmp_path / "data"
    shutil.copytree(walls.folder(), data, ignore=shutil.ignore_patterns("run"))
    (data / "green.png").write_bytes(b"no picture")
    for name, changes in {
        "whole": dict(evaluate__batch=4),
        "parts": dict(evaluate__batch=3),
        "other": dict(evaluate__batch=4, seed=9),
        "spoilt": dict(evaluate__batch=4, data__path=str(data)),
    }.items():
        score(trained, tmp_path / name, evaluate__search=sample, **changes)
    whole, parts, other, spoilt = (
        said(tmp_path / name) for name in ("whole", "parts", "other", "spoilt")
    )
    assert whole == parts
    assert whole == spoilt | {"green.png": whole["green.png"]} and len(spoilt) == 3
    assert all(whole[id] != other[id] for id in whole)


def test_a_part_of_a_split_is_scored(trained: Trained, tmp_path: Path) -> None:
    found = score(trained, tmp_path / "run", evaluate__examples=3, evaluate__batch=2)
    assert found["train"]["examples"] == 3
    whole = said(walls.run())
    part = said(tmp_path / "run")
    assert list(part) == list(whole)[:3]
    assert part.items() <= whole.items()
    with pytest.raises(ValueError, match=r"evaluate\.examples=0 must be .*None scores"):
        Evaluation(examples=0)


@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_hosts_share_a_part_of_a_split(
    trained: Trained, count: int, ranks: int
) -> None:
    source = Scenes(size=32, count=8).split("train")
    loader, task = build(trained.config.loader), build(trained.config.task)
    ids = [
        id
        for rank in range(ranks)
        for batch in loader.evaluation(
            Excerpt(source, count),
            task,
            trained.tokenizer,
            batch=4,
            rank=rank,
            ranks=ranks,
        )
        for id in batch.ids
    ]
    spread = [source[i * 8 // count]["id"] for i in range(count)]
    assert sorted(ids) == sorted(spread) and len(set(ids)) == count


def test_a_search_longer_than_the_model_is_refused_before_any_step(
    trained: Trained,
) -> None:
    def search(longest: int) -> Any:
        return spec(Sample, max_tokens=longest)

    evaluator(trained, evaluate__search=search(walls.TEXT))
    message = (
        r"evaluate\.search\.max_tokens=17 does not fit model\.embed\.positions=16: "
        r".*max_tokens to at most 16 .*positions to 17 or more"
    )
    with pytest.raises(ValueError, match=message):
        evaluator(trained, evaluate__search=search(walls.TEXT + 1))


def test_a_layout_fits_any_number_of_devices() -> None:
    trained = Layout(data=2, fsdp=4, tensor=2)
    for devices, fsdp, tensor in (
        (16, 4, 2),
        (64, 4, 2),
        (8, 4, 2),
        (4, 2, 2),
        (2, 1, 2),
        (1, 1, 1),
        (6, 1, 2),
        (3, 1, 1),
    ):
        fitted = trained.fitted(devices)
        assert fitted == Layout(data=None, fsdp=fsdp, tensor=tensor)
        if devices <= jax.device_count():
            assert fitted.mesh(jax.devices()[:devices]).size == devices
    assert Layout(data=1, fsdp=None).fitted(8) == Layout(fsdp=8)


def test_a_mesh_that_the_command_line_names_is_taken_or_refused() -> None:
    run = str(walls.run())
    named = walls.options("--config.mesh.data=4", "--config.mesh.tensor=1")
    mesh = Trained.open(run, named).mesh
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    with pytest.raises(ValueError, match=r"data 3 x fsdp 2 x tensor 2 does not fill 8"):
        Trained.open(run, walls.options("--config.mesh.data=3"))


def test_a_run_keeps_its_own_config_and_model() -> None:
    run = str(walls.run())
    options = walls.options()
    options.flags.config = "configs/scenes.py:tiny"
    with pytest.raises(ValueError, match=r"what is trained keeps its own config"):
        Trained.open(run, options)
    with pytest.raises(ValueError, match=r"decoder/.* is \(2, .* there and \(3, "):
        Trained.open(run, walls.options("--config.model.decoder.depth=3"))
    other = Trained.open(run, walls.options("--config.model.dtype=bfloat16"))
    assert other.config.model.dtype == "bfloat16"
