"""What a text says of a scene, and whether it is true."""

import dataclasses
import itertools
import random

import pytest

from git_jax.data import grammar
from git_jax.data.grammar import COLOURS, OPPOSITE, SHAPES, Scene, Thing
from git_jax.data.scenes import COUNTS, KINDS, Scenes

CORPORA = [
    pytest.param(Scenes(part=part, level=level, size=32), id=f"{level}-{part}")
    for level, part in itertools.product(("pairs", "full", "clips"), COUNTS)
]


def thing(colour: str, shape: str, x: float, y: float) -> Thing:
    return {"shape": shape, "colour": colour, "centre": (x, y), "size": 16}


def make_scene(*things: Thing, motion: str | None = None) -> Scene:
    return {"objects": list(things), "digits": [], "words": [], "motion": motion}


# A red circle above a blue square, which is a little to the right.
TWO = make_scene(thing("red", "circle", 30, 15), thing("blue", "square", 40, 45))


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_caption_reads_back_exact(corpus):
    for index in range(150):
        scene = corpus[index]["scene"]
        for caption in corpus.texts(index):
            verdict = grammar.judge(caption, scene)
            number = len(scene["objects"])
            assert verdict == grammar.Verdict(number, number, True), (caption, scene)


@pytest.mark.parametrize("corpus", CORPORA)
def test_captions_are_short_and_worded_differently(corpus):
    words = []
    for index in range(150):
        texts = corpus.texts(index)
        assert len(set(texts)) == len(texts) == 5
        words += [len(text.split()) for text in texts]
    assert 6 <= sum(words) / len(words) <= 16
    assert max(words) < 30


def test_half_of_the_captions_keep_colour_and_shape_apart():
    kinds = [f"{c} {s}" for s in SHAPES for c in COLOURS]
    texts = [text for index in range(200) for text in Scenes().texts(index)]
    joined = [text for text in texts if any(kind in text for kind in kinds)]
    assert 0.3 < len(joined) / len(texts) < 0.6


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle above a blue square",
        "A blue square below a red circle.",
        "a circle that is red is over a square coloured blue",
        "under a red circle there is a blue square",
        "a blue square with a red circle above it",
        "a red circle, and below it a blue square",
        "a red circle at the top and a blue square at the bottom",
        "at the bottom is a square in blue and at the top is a circle in red",
        "the upper one is a red circle, the other a blue square",
        "a circle above a square, the circle is red and the square is blue",
        "something blue beneath something red, a square and a circle",
        "a circle higher than a square, one red and one blue",
        "a red circle and a blue square, the square at the bottom",
    ],
)
def test_the_same_truth_in_other_words(caption):
    assert grammar.judge(caption, TWO) == grammar.Verdict(2, 2, True)


@pytest.mark.parametrize(
    ("caption", "right", "total"),
    [
        ("a red circle below a blue square", 2, 2),  # a false relation
        ("a red circle left of a blue square", 2, 2),  # it is, but far less than above
        ("a red circle and a blue square", 2, 2),  # no relation
        ("a green circle above a blue square", 1, 2),  # a wrong colour
        ("a red ring above a blue square", 1, 2),  # a wrong shape
        ("a blue circle above a red square", 0, 2),  # colours swapped
        ("a red circle", 1, 2),  # one left out
        ("a red circle above a blue square and a star", 2, 3),  # one too many
        ("a red circle above a red circle", 1, 2),  # one named twice
        ("a red circle above a blue square above", 2, 2),  # a word left over
        ("a red circle above a blue square, with a handwritten two", 2, 2),
        ("a red circle above a blue square, and the word exit", 2, 2),
        ("a red circle above a blue square moving left", 2, 2),
        ("a red circle at the top and a blue square at the top", 2, 2),
        ("at the top above it", 0, 2),
        ("", 0, 2),
    ],
)
def test_what_is_wrong_is_found(caption, right, total):
    assert grammar.judge(caption, TWO) == grammar.Verdict(right, total, False)


@pytest.mark.parametrize("part", ("test", "compositional"))
def test_a_changed_word_is_judged_wrong(part):
    # In any wording: another colour, another shape, the opposite relation.
    rng = random.Random(0)
    corpus = Scenes(part=part)
    ways = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    ways |= {"above": "below", "below": "above", "upper": "lower", "lower": "upper"}
    ways |= {"over": "under", "under": "over", "beneath": "over", "higher": "lower"}
    for index in range(100):
        record = corpus[index]
        for caption in record["texts"]:
            words = caption.replace(",", " ,").split()
            for at, word in enumerate(words):
                for set_ in (COLOURS, SHAPES):
                    if word in set_:
                        other = rng.choice([w for w in set_ if w != word])
                        text = " ".join([*words[:at], other, *words[at + 1 :]])
                        assert not grammar.judge(text, record["scene"]).exact, text
            turned = " ".join(ways.get(word, word) for word in words)
            verdict = grammar.judge(turned, record["scene"])
            assert verdict == grammar.Verdict(2, 2, False), turned


def test_any_true_relation_counts_and_every_stated_one_must_hold():
    green = thing("green", "star", 10, 30)
    three = make_scene(*TWO["objects"], green)
    said = "a red circle above a blue square and {} a green star"
    assert grammar.judge(said.format("right of"), three).exact
    assert grammar.judge(said.format("and"), three).exact
    assert not grammar.judge(said.format("left of"), three).exact


def test_on_the_diagonal_both_directions_hold():
    a, b = thing("red", "star", 10, 10), thing("blue", "star", 20, 20)
    ways = {way for way in OPPOSITE if grammar.holds(a, way, b)}
    assert ways == {"left", "above"}
    assert grammar.direction(a, b) in ways
    assert not any(grammar.holds(a, way, a) for way in OPPOSITE)


def test_a_relation_is_its_opposite_seen_from_the_other_side():
    rng = random.Random(1)
    for _ in range(200):
        a, b = (thing("red", "star", rng.random(), rng.random()) for _ in range(2))
        way = grammar.direction(a, b)
        assert grammar.holds(a, way, b) and grammar.holds(b, OPPOSITE[way], a)


def test_motion_and_number_of_things():
    moving = make_scene(thing("red", "circle", 9, 9), motion="left")
    assert grammar.judge("a red circle moves to the left", moving).exact
    assert not grammar.judge("a red circle moves to the right", moving).exact
    assert not grammar.judge("a red circle", moving).exact
    assert (
        grammar.judge("just a circle", make_scene(thing("red", "circle", 9, 9))).right
        == 0
    )


def test_any_text_gives_a_reading():
    rng = random.Random(2)
    scraps = [*COLOURS, *SHAPES, *"the a one it and above left of top is".split()]
    scraps += ["to the left of", "to its right", "moves", "handwritten 3", "says"]
    for _ in range(2000):
        text = " ".join(rng.choices(scraps, k=rng.randrange(12)))
        said = grammar.parse(text)
        count = len(said.objects)
        assert all(i < count and j < count and i != j for i, _, j in said.relations)
        assert count <= sum(word in COLOURS + SHAPES for word in text.split())
        verdict = grammar.judge(text, TWO)
        assert verdict.right <= 2 <= verdict.total == max(2, count)
    for text in ("\0", "🟥 above 🟦", "red" * 1000, "\n\t", "Ünïcödé circle"):
        grammar.judge(text, TWO)


def test_accuracy_sums_over_pictures():
    judged = [grammar.Verdict(2, 2, True), grammar.Verdict(1, 3, False)]
    assert grammar.accuracy(judged) == {"object_accuracy": 0.6, "caption_exact": 0.5}
    assert grammar.accuracy([]) == {"object_accuracy": 0.0, "caption_exact": 0.0}
    assert dataclasses.astuple(judged[0]) == (2, 2, True)


@pytest.mark.parametrize("level", ("full", "clips"))
def test_questions_have_ten_answers_that_mostly_agree(level):
    dissent = 0
    for index in range(150):
        record = Scenes(level=level, size=32)[index]
        asked = record["questions"]
        assert len({one["question"] for one in asked}) == len(asked) == 3
        for one in asked:
            answers = one["answers"]
            assert len(answers) == 10
            common = max(set(answers), key=answers.count)
            assert answers.count(common) >= 6
            assert true_answer(one["question"], record["scene"]) in (common, None)
            dissent += 10 - answers.count(common)
    assert 0.02 < dissent / (150 * 30) < 0.3


def true_answer(question: str, scene: Scene) -> str | None:
    """Answers those questions whose answer can be read off the scene at once."""
    kinds = [(one["colour"], one["shape"]) for one in scene["objects"]]
    words = question.rstrip("?").split()
    if question.startswith("how many"):
        return str(len(kinds))
    if question.startswith("is there"):
        return "yes" if (words[3], words[4]) in kinds else "no"
    if question.startswith("what colour"):
        return {shape: colour for colour, shape in kinds}[words[4]]
    if question.startswith("which shape"):
        return dict(kinds)[words[3]]
    if question.startswith("is the"):
        a, b = kinds.index((words[2], words[3])), kinds.index((words[-2], words[-1]))
        pair = (scene["objects"][a], scene["objects"][b])
        said = f"a {words[2]} {words[3]} {words[4]} a {words[-2]} {words[-1]}"
        said = said.replace("left", "left of").replace("right", "right of")
        return "yes" if grammar.judge(said, make_scene(*pair)).exact else "no"
    if question.startswith("which digit"):
        return str(scene["digits"][0])
    if question.startswith("what does the sign"):
        return scene["words"][0]
    return None


@pytest.mark.parametrize("part", ("train", "test"))
def test_no_text_of_training_names_a_held_out_pair(part):
    held_out = [f"{c} {s}" for s, c in KINDS["compositional"]]
    for level in ("pairs", "full", "clips"):
        for index in range(150):
            record = Scenes(part=part, level=level, size=32)[index]
            said = list(record["texts"])
            for one in record.get("questions", ()):
                said += [one["question"], *one["answers"]]
            assert not [s for s in said for kind in held_out if kind in s]
