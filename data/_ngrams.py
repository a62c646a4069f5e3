"""Sentences as vectors of hashed words and word pieces (Weinberger et al. 2009, https://arxiv.org/abs/0902.2206)."""

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from jaxmeta._checks import check_integer

_WORD = re.compile(r"\w+")


def hash_ngrams(sentences: Iterable[str], size: int = 2048, pieces: tuple[int, ...] = (3, 4)) -> np.ndarray:
    """Counts hashed words and word pieces of sentences, as vectors of norm 1.

    A sentence is split into its words in lower case. Each word, with a mark at either end, is split into all pieces of
    the given numbers of letters, so words with the same stem share pieces. Each different word and its pieces count
    once, at the index that their CRC-32 gives modulo `size`. Counts at the same index are added. There is no vocabulary
    and nothing is learned, so the vector of a sentence depends on nothing else and is the same on every machine.

    Args:
        sentences: the sentences, n.
        size: length of a vector, d.
        pieces: numbers of letters in a piece, `()` for whole words only.

    Returns:
        Features: `[n, d]`, float32. A sentence without words gives zeros.

    Raises:
        TypeError: if `sentences` is a single string, or contains something else than strings.
        ValueError: if `size` or a number of letters is not a positive integer.

    Example:
        >>> features = hash_ngrams(["Pay my bill", "pay bills", "what is the weather"])
        >>> features.shape
        (3, 2048)
        >>> print((features @ features.T).round(2))
        [[1.   0.65 0.  ]
         [0.65 1.   0.  ]
         [0.   0.   1.  ]]

    References:
        Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009, https://arxiv.org/abs/0902.2206
    """
    (size,) = check_integer(size=size)
    for letters in pieces:
        check_integer(pieces=letters)
    if isinstance(sentences, str):
        raise TypeError("sentences must be many strings, got one")
    sentences = list(sentences)
    features = np.zeros((len(sentences), size), np.float32)
    places: dict[str, np.ndarray] = {}
    for row, sentence in zip(features, sentences, strict=True):
        if not isinstance(sentence, str):
            raise TypeError(f"sentences must be strings, got {sentence!r}")
        for word in dict.fromkeys(_WORD.findall(sentence.lower())):
            if word not in places:
                places[word] = np.array([zlib.crc32(gram.encode()) % size for gram in _grams(word, pieces)])
            np.add.at(row, places[word], 1)
        row /= max(float(np.linalg.norm(row)), 1.0)
    return features


def _grams(word: str, pieces: tuple[int, ...]) -> Iterator[str]:
    """Yields a word and its different pieces."""
    yield word
    marked = f"<{word}>"
    for letters in pieces:
        yield from dict.fromkeys("#" + marked[i : i + letters] for i in range(len(marked) - letters + 1))
