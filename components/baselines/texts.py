"""The floors under models that read: a classifier of words, one of another model's vectors, and shared words."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC


def classify_by_words(texts: Sequence[str], classes: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The class of each asked text by a linear support vector machine over TF-IDF of words and word pairs."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    machine = LinearSVC(random_state=0).fit(vectorizer.fit_transform(texts), list(classes))
    return [str(name) for name in machine.predict(vectorizer.transform(asked))]


def classify_by_vectors(vectors: np.ndarray, classes: Sequence[str], asked: np.ndarray) -> list[str]:
    """The class of each asked vector (M, D) by a logistic regression over (N, D)."""
    # Unit vectors of a few hundred numbers bear little regularisation
    regression = LogisticRegression(C=3.0, max_iter=2000).fit(vectors.astype(np.float64), list(classes))
    return [str(name) for name in regression.predict(asked.astype(np.float64))]


def compare_words(corpus: Sequence[str], firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
    """The cosine of each pair's TF-IDF vectors, (N,); the weights of words are the corpus's."""
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(corpus)
    products = vectorizer.transform(firsts).multiply(vectorizer.transform(seconds))
    return np.asarray(products.sum(axis=1)).ravel()
