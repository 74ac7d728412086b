"""The published searches in plain Python, one picture at a time, nothing cached.

Each asks a model for no more than `prefixes[picture]`, the ids that it has read, and
`log_prob(picture, text)`, natural logarithms for the word after prefix and text.
"""

import math

import numpy as np

EOS, PAD = 1, 0


def greedy(model, picture, *, size, repeat):
    """(words, mean log-probability of the generated tokens)."""
    text, paid = (), []
    while len(paid) < size:
        log_prob = model.log_prob(picture, text)
        if text and not repeat:
            log_prob[text[-1]] = -math.inf
            log_prob -= np.log(np.sum(np.exp(log_prob)))
        token = int(np.argmax(log_prob))
        paid.append(log_prob[token])
        if token == EOS:
            break
        text = (*text, token)
    return text, sum(paid) / len(paid)


def extensions(model, picture, live):
    """Every beam followed by every token: (sum, text, token), best first."""
    found = []
    for total, text in live:
        log_prob = model.log_prob(picture, text)
        found += [(total + log_prob[v], text, v) for v in range(len(log_prob))]
    return sorted(found, key=lambda extension: -extension[0])


def gnmt_beam(model, picture, *, beams, size, penalty, stop=True):
    """The original release: one hypothesis is kept, `limit` ids with the prefix."""
    prefix = len(model.prefixes[picture])
    limit = prefix + size

    def norm(length):
        return (5 + length) ** penalty / 6**penalty

    live, kept = [(0.0, ())], None
    for length in range(prefix, limit):
        ranked = extensions(model, picture, live)[: 2 * beams]
        if stop and kept and kept[0] >= ranked[0][0] / norm(limit - 1):
            break
        live = []
        for total, text, token in ranked:
            if token == EOS or length + 1 == limit:
                score = total / norm(prefix + len(text))
                if kept is None or score > kept[0]:
                    kept = score, text
            else:
                live.append((total, (*text, token)))
            if len(live) == beams:
                break
    return kept[1], kept[0]


def huggingface_beam(model, picture, *, beams, size, penalty, stop=True):
    """transformers 5.23 with early_stopping=False: `beams` finished texts are kept."""
    live, kept = [(0.0, ())], []
    for generated in range(1, size + 1):
        ranked = extensions(model, picture, live)[: 2 * beams]
        for total, text, token in ranked[:beams]:
            if token == EOS or generated == size:
                text = text if token == EOS else (*text, token)
                kept.append((total / generated**penalty, text))
        kept = sorted(kept, key=lambda hypothesis: -hypothesis[0])[:beams]
        live = [(s, (*text, v)) for s, text, v in ranked if v != EOS][:beams]
        full = len(kept) == beams
        if stop and full and live[0][0] / generated**penalty <= kept[-1][0]:
            break
    return kept[0][1], kept[0][0]


def words(decoded):
    return [
        tuple(tokens[:length].tolist())
        for tokens, length in zip(
            np.asarray(decoded.tokens), np.asarray(decoded.length), strict=True
        )
    ]


def assert_found(decoded, expected):
    """`expected` holds (words, score) of each picture."""
    assert words(decoded) == [text for text, _ in expected]
    # Sums of log-probabilities in float32: an absolute error is theirs by right.
    scores = [score for _, score in expected]
    np.testing.assert_allclose(decoded.score, scores, rtol=1e-5, atol=1e-6)
