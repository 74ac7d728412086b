"""Several sources as one, and in what shares their records are drawn."""

import dataclasses
import functools

import numpy as np

from git_jax.data.source import BadRecord, Lazy, Record, Source, texts, within

MOST = 1e9
"""The largest weight; the least is its inverse. Products of them are still numbers."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Records start .. start + size of a source, drawn in proportion to weight."""

    start: int
    size: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Mixture(Lazy):
    """Several sources as one: `Mixture({"a": A, "b": B}, {"a": 3, "b": 1})`.

    As a sequence it is the sources one after another, so that an evaluation sees each
    record once. The loader draws from it by weight: of any 4 records in a row 3 come
    from `a`, each source in an order of its own and begun anew when it is used up.
    Ids are "a/..." and "b/...", splits "a/test", .... Sources come in the order of
    their names, however they were written down.
    """

    sources: dict[str, Source]
    weights: dict[str, float]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("a mixture needs a source: --config.data.sources is empty")
        if set(self.sources) != set(self.weights):
            raise ValueError(
                f"the weights of a mixture are for {sorted(self.weights)}, its sources "
                f"are {sorted(self.sources)}: give each source one weight"
            )
        for name, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(
                    f"--config.data.weights.{name}={weight} is not a positive number: "
                    "leave a source out of the mixture to never see it"
                )
            if not 1 / MOST <= weight <= MOST:
                raise ValueError(
                    f"--config.data.weights.{name}={weight} must be at least "
                    f"{1 / MOST:g} and at most {MOST:g}: only the ratios of weights "
                    "count, so divide all of them by one number"
                )

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(
            f"{name}/{split}"
            for name in sorted(self.sources)
            for split in self.sources[name].splits
        )

    def split(self, name: str) -> Source:
        source, _, split = name.partition("/")
        if source not in self.sources or not split:
            raise ValueError(
                f"the mixture has no split {name!r}: name a source and its split, such "
                f"as {', '.join(self.splits)}"
            )
        return Mixture({source: self.sources[source].split(split)}, {source: 1.0})

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        name, index = self._find(index)
        try:
            record = self.sources[name][index]
        except BadRecord as error:
            raise BadRecord(f"{name}/{error.id}", error.reason, error.detail) from error
        return record | {"id": f"{name}/{record['id']}"}

    def texts(self, index: int) -> tuple[str, ...]:
        name, index = self._find(index)
        return texts(self.sources[name], index)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        sizes = {name: len(self.sources[name]) for name in sorted(self.sources)}
        for name, size in sizes.items():
            if not size:
                raise ValueError(
                    f"the source {name!r} of the mixture has no records: leave it out"
                )
        return np.cumsum(list(sizes.values()))

    def _find(self, index: int) -> tuple[str, int]:
        index = within(index, len(self))
        number = int(np.searchsorted(self._ends, index, side="right"))
        name = sorted(self.sources)[number]
        return name, index - int(self._ends[number]) + len(self.sources[name])


def parts(source: Source) -> list[Part]:
    """How the records of a source are to be drawn: a mixture has a part per source."""
    if not isinstance(source, Mixture):
        return [Part(0, len(source), 1.0)]
    found, start = [], 0
    total = sum(source.weights.values())
    for name in sorted(source.sources):
        inside = parts(inner := source.sources[name])
        share = source.weights[name] / total / sum(part.weight for part in inside)
        found += [
            Part(start + part.start, part.size, part.weight * share) for part in inside
        ]
        start += len(inner)
    return found
