"""A mixture: the sources one after another, and the shares they are drawn in."""

import dataclasses
import pickle

import pytest

from git_jax.data.mixture import Mixture, Part, parts
from git_jax.data.source import BadRecord, Record, Source


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Record i says the i-th number; every third is bad if so wished."""

    count: int
    name: str = "n"
    bad: bool = False
    splits = ("test", "other")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if self.bad and index % 3 == 0:
            raise BadRecord(f"{index}", "odd", "it is")
        return {"id": f"{index}", "frames": [], "texts": (f"{self.name} {index}",)}

    def split(self, name: str) -> "Numbers":
        return dataclasses.replace(self, name=name)


def mixed(weight: float = 3.0) -> Mixture:
    return Mixture(
        {"b": Numbers(6, "b", True), "a": Numbers(4, "a")}, dict(a=weight, b=1.0)
    )


def test_a_mixture_is_its_sources_one_after_another() -> None:
    mixture = mixed()
    assert isinstance(mixture, Source)
    assert len(mixture) == 10
    assert [mixture[i]["id"] for i in (0, 3, 5, -1)] == ["a/0", "a/3", "b/1", "b/5"]
    assert [mixture.texts(i) for i in (3, 5)] == [("a 3",), ("b 1",)]
    with pytest.raises(BadRecord, match="b/3: odd: it is"):
        mixture[7]
    with pytest.raises(IndexError):
        mixture[10]
    assert pickle.loads(pickle.dumps(mixture))[5]["id"] == "b/1"


def test_a_mixture_has_the_splits_of_its_sources() -> None:
    assert mixed().splits == ("a/test", "a/other", "b/test", "b/other")
    test = mixed().split("b/test")
    assert test.sources == {"b": Numbers(6, "test", True)}
    assert test[1]["id"].startswith("b/")  # no other source has a record of that name
    for name in ("test", "c/test", "a"):
        with pytest.raises(ValueError, match=f"no split '{name}'.*a/test"):
            mixed().split(name)


def test_parts_flatten_nested_mixtures() -> None:
    nested = Mixture({"x": Numbers(2), "y": mixed()}, {"x": 1.0, "y": 1.0})
    assert parts(nested) == [
        Part(0, 2, 0.5),
        Part(2, 4, 0.375),
        Part(6, 6, 0.125),
    ]
    assert parts(Numbers(5)) == [Part(0, 5, 1.0)]


def test_mistaken_mixtures_are_named() -> None:
    numbers = Numbers(3)
    with pytest.raises(ValueError, match="sources is empty"):
        Mixture({}, {})
    with pytest.raises(ValueError, match=r"\['b'\], its sources are \['a'\]"):
        Mixture({"a": numbers}, {"b": 1.0})
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="weights.a=.* is not a positive number"):
            Mixture({"a": numbers}, {"a": weight})
    for weight in (1e308, 1e-300, 10**400):
        with pytest.raises(ValueError, match="weights.b=1.* must be at least 1e-09 an"):
            Mixture({"a": numbers, "b": numbers}, {"a": 1.0, "b": weight})
    with pytest.raises(ValueError, match="source 'a' of the mixture has no records"):
        len(Mixture({"a": Numbers(0)}, {"a": 1.0}))
