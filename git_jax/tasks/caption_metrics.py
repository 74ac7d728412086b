"""BLEU, ROUGE-L and CIDEr-D of captions, number for number those of pycocoevalcap.

All work on token strings, words joined by blanks (`ptb.tokenize` makes them):
`candidates` is one string for each of P pictures, `references` one or more for each, in
the same order, and P > 0. Numbers are fractions, as in the reference; papers print them
times 100.

Source: pycocoevalcap 1.2. Papineni et al. 2002 (BLEU), Lin 2004 (ROUGE-L), Vedantam et
al. 2015 (CIDEr; what is called CIDEr everywhere is the paper's CIDEr-D).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4  # n-grams of one to four words
_TINY, _SMALL = 1e-15, 1e-9  # BLEU's guards against 0 / 0, as the reference has them
_BETA = 1.2  # how much more recall counts than precision in ROUGE-L
_SIGMA = 6.0  # words of difference in length that CIDEr-D forgives

References = Sequence[Sequence[str]]
Bag = Counter[tuple[str, ...]]  # n-grams and how often each is there


@dataclass(frozen=True)
class Metric:
    """A number for the whole set, and one for each picture, f64 [P]."""

    corpus: float
    pictures: np.ndarray


def captions(
    candidates: Sequence[str], references: References, cider: "Cider"
) -> dict[str, Metric]:
    """All of them by the names of the reference: BLEU_1 .. BLEU_4, ROUGE_L, CIDEr."""
    orders = bleu(candidates, references)
    return {
        **{f"BLEU_{n}": metric for n, metric in enumerate(orders, start=1)},
        "ROUGE_L": rouge_l(candidates, references),
        "CIDEr": cider.score(candidates),
    }


def bleu(candidates: Sequence[str], references: References) -> list[Metric]:
    """BLEU-1 to BLEU-4 of the corpus: counts are summed before they are divided.

    "a a a" against "a cat": one of three words is right, since "a" is there once.
    The length compared with is that of the closest reference, of two the shorter.
    """
    size = len(candidates)
    right, tried = np.zeros((size, ORDERS)), np.zeros((size, ORDERS))
    length, target = np.zeros(size), np.zeros(size)
    for row, (candidate, texts) in enumerate(_pairs(candidates, references)):
        allowed: Bag = Counter()
        for text in texts:
            allowed |= _ngrams(text)
        for ngram, count in _ngrams(candidate).items():
            right[row, len(ngram) - 1] += min(count, allowed[ngram])
        words = len(candidate.split())
        tried[row] = [max(0, words - n) for n in range(ORDERS)]
        length[row] = words
        lengths = [len(text.split()) for text in texts]
        target[row] = min(lengths, key=lambda other: (abs(other - words), other))
    counts = (right, tried, length, target)
    pictures = _bleu(*counts)
    corpus = _bleu(*(part.sum(0, keepdims=True) for part in counts))
    return [Metric(float(corpus[0, n]), pictures[:, n]) for n in range(ORDERS)]


def _bleu(
    right: np.ndarray, tried: np.ndarray, length: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """[R 4] matches and tries, [R] lengths -> [R 4] the geometric means, penalised."""
    precision = np.cumprod((right + _TINY) / (tried + _SMALL), axis=1)
    mean = precision ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (target + _SMALL)
    with np.errstate(over="ignore"):  # an empty candidate: exp(1 - 1/ratio) is 0
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return mean * brevity[:, None]


def rouge_l(candidates: Sequence[str], references: References) -> Metric:
    """ROUGE-L: the best precision and the best recall of any reference, separately."""
    scores = []
    for candidate, texts in _pairs(candidates, references):
        said = candidate.split(" ")  # "" is one word, the empty one, in the reference
        known = [text.split(" ") for text in texts]
        common = [_longest_common(said, words) for words in known]
        precision = max(common) / len(said)
        recall = max(n / len(words) for n, words in zip(common, known, strict=True))
        weighted = recall + _BETA**2 * precision
        scores.append((1 + _BETA**2) * precision * recall / weighted if weighted else 0)
    return Metric(float(np.mean(scores)), np.array(scores))


def _longest_common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence: [a b c d], [b x d] -> 2."""
    # Hyyrö 2004: one integer holds a row of the usual table; a 0 bit is a step up.
    places: dict[str, int] = {}
    for i, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << i
    row = full = (1 << len(b)) - 1
    for word in a:
        steps = row & places.get(word, 0)
        row = (row + steps | row - steps) & full
    return len(b) - row.bit_count()


class Cider:
    """CIDEr-D against fixed references: read once, scored as often as one likes.

    A caption is a vector of its n-grams' counts times their rarity, log(P / pictures
    whose references hold it), one vector for each n. Candidate c and reference r agree
    by the mean over n = 1 .. 4 of

        10 * sum_g min(c_g, r_g) r_g / (|c| |r|) * exp(-(len c - len r)^2 / 72)

    and that is averaged over the references of a picture. With one picture all rarities
    are 0, and so is the score.
    """

    # min(x, y) is the sum over levels t = 1, 2, .. of [x >= t] [y >= t]. So a *feature*
    # is an n-gram and a level, which a candidate has or has not, and the sum over g is
    # that times weights of the reference alone: plain sums over flat arrays.

    def __init__(self, references: References) -> None:
        self._size = len(references)
        self._texts = [text for texts in references for text in texts]
        texts = [len(texts) for texts in references]
        self._picture = np.repeat(np.arange(self._size), texts)  # of each text
        self._share = 1 / np.repeat(np.array(texts, float), texts)  # in its picture

        self._bags = [_ngrams(text) for text in self._texts]
        distinct = dict.fromkeys(ngram for bag in self._bags for ngram in bag)
        self._number = {ngram: i for i, ngram in enumerate(distinct)}
        flat = self._flat(self._bags)
        held = np.unique(self._picture[flat.row] * len(distinct) + flat.gram)
        pictures = np.bincount(held % max(1, len(distinct)), minlength=len(distinct))
        # The last one is for all n-grams that no reference holds.
        self._rarity = np.log(self._size) - np.log(np.append(pictures, 1.0))
        self._norm = self._norms(flat, len(self._bags))
        self._length = _lengths(self._bags)

        # One entry for each feature of each reference, and its part in a dot product.
        self._levels = int(flat.count.max(initial=0))
        entry, level = _spread(flat.count)
        self._text, self._order = flat.row[entry], flat.order[entry]
        self._feature = flat.gram[entry] * self._levels + level
        self._features = len(distinct) * self._levels
        self._weight = (self._rarity[flat.gram] ** 2 * flat.count)[entry]

    def score(self, candidates: Sequence[str]) -> Metric:
        """The agreement of each candidate with the references of its picture."""
        assert len(candidates) == self._size, (len(candidates), self._size)
        bags = [_ngrams(text) for text in candidates]
        flat = self._flat(bags)
        entry, feature = self._found(flat)
        has = np.isin(
            self._picture[self._text] * self._features + self._feature,
            flat.row[entry] * self._features + feature,
        )
        dots = _cells(self._text, self._order, self._weight * has, len(self._texts))
        norms = self._norms(flat, len(bags))[self._picture] * self._norm
        near = _closeness(_lengths(bags)[self._picture] - self._length)
        agreement = _ratio(dots, norms).mean(1) * near
        pictures = 10 * np.bincount(self._picture, agreement * self._share)
        return Metric(float(pictures.mean()), pictures)

    def best_constant(self) -> tuple[str, float]:
        """The reference that scores best when every picture gets it, and its score.

        All references are tried. What a caption scores on all pictures is a dot product
        with one sum over their references, the same for all captions of its length.
        """
        bags = dict(zip(self._texts, self._bags, strict=True))  # each text once
        flat, lengths = self._flat(list(bags.values())), _lengths(list(bags.values()))
        entry, feature = self._found(flat)
        row, order = flat.row[entry], flat.order[entry]
        norms = self._norms(flat, len(bags))[row, order]
        part = _ratio(self._weight, self._norm[self._text, self._order])
        part *= self._share[self._text]
        scores = np.zeros(len(bags))
        for length in np.unique(lengths):
            near = _closeness(length - self._length)[self._text]
            pull = np.bincount(self._feature, part * near, self._features)
            of = np.flatnonzero(lengths[row] == length)
            alike = _ratio(pull[feature[of]], norms[of])
            scores += np.bincount(row[of], alike, len(bags))
        best = int(scores.argmax())
        return list(bags)[best], float(scores[best] * 10 / ORDERS / self._size)

    def _flat(self, bags: Sequence[Bag]) -> "_Flat":
        new = len(self._number)
        return _Flat(
            np.repeat(np.arange(len(bags)), [len(bag) for bag in bags]),
            np.array([self._number.get(g, new) for bag in bags for g in bag], int),
            np.array([len(ngram) - 1 for bag in bags for ngram in bag], int),
            np.array([count for bag in bags for count in bag.values()], int),
        )

    def _norms(self, flat: "_Flat", rows: int) -> np.ndarray:
        """The length of each bag's four vectors, [rows 4]."""
        squares = (flat.count * self._rarity[flat.gram]) ** 2
        return np.sqrt(_cells(flat.row, flat.order, squares, rows))

    def _found(self, flat: "_Flat") -> tuple[np.ndarray, np.ndarray]:
        """The features of the references that are in bags: (entry of flat, feature)."""
        entry, level = _spread(np.minimum(flat.count, self._levels))
        feature = flat.gram[entry] * self._levels + level
        known = flat.gram[entry] < len(self._number)
        return entry[known], feature[known]


@dataclass(frozen=True)
class _Flat:
    """Bags as columns, one entry for each n-gram of each bag, i64 [E]."""

    row: np.ndarray  # which bag
    gram: np.ndarray  # which n-gram of the references; their number if it is in none
    order: np.ndarray  # n - 1
    count: np.ndarray


def _cells(
    row: np.ndarray, order: np.ndarray, value: np.ndarray, rows: int
) -> np.ndarray:
    """The sums of the values of each row and order, [rows 4]."""
    cells = np.bincount(row * ORDERS + order, value, rows * ORDERS)
    return cells.reshape(rows, ORDERS)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _spread(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[2 1] -> entries [0 0 1] and their levels [0 1 0]."""
    entry = np.repeat(np.arange(len(count)), count)
    return entry, np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)


def _closeness(difference: np.ndarray) -> np.ndarray:
    return np.exp(-(difference**2) / (2 * _SIGMA**2))


def _lengths(bags: Sequence[Bag]) -> np.ndarray:
    # The reference counts bigrams and calls that the length; it needs differences only.
    return np.array(
        [sum(n for g, n in bag.items() if len(g) == 2) for bag in bags], int
    )


def _ngrams(text: str) -> Bag:
    words = text.split()
    return Counter(
        tuple(words[i : i + n])
        for n in range(1, ORDERS + 1)
        for i in range(len(words) - n + 1)
    )


def _pairs(
    candidates: Sequence[str], references: References
) -> Iterator[tuple[str, Sequence[str]]]:
    return zip(candidates, references, strict=True)
