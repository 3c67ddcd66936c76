"""Images small enough to make inside a test, and the many ways in which a file can be no image."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

NUM_TRAIN, NUM_TEST = 40, 6


def make_pixels(num=12, size=28, channels=1, seed=0):
    """(N, H, W) or (N, H, W, 3) of smooth random uint8, which JPEG keeps nearly as they are."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (num, 4, 4, channels), dtype=np.uint8)
    large = coarse.repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)[:, :size, :size]
    return large[..., 0] if channels == 1 else large


def write_files(folder: Path, pixels, suffix=".jpg"):
    """One file an image; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{row:03d}{suffix}" for row in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


def write_leaves(folder: Path):
    """Cassava's files in miniature: the mean colour tells the class."""
    for part, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        classes = (np.arange(num) % 5 * 40).astype(np.uint8)[:, None, None, None]
        write_files(folder / f"{part}_images", make_pixels(num, size=48, channels=3) // 4 + classes)
    names = [f"{row:03d}.jpg" for row in range(NUM_TRAIN)]
    pd.DataFrame({"image_id": names, "label": np.arange(NUM_TRAIN) % 5}).to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"image_id": names[:NUM_TEST], "label": 4}).to_csv(folder / "sample_submission.csv", index=False)


def tear(path: Path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path):
    path.write_bytes(b"")


def turn_grey(path: Path):
    Image.open(path).convert("L").save(path)


def scribble(path: Path):
    path.write_bytes(b"this is no picture, whatever its name says")


DAMAGES = {
    "torn": (tear, "torn"),
    "empty": (empty, "empty, 0 bytes"),
    "grey": (turn_grey, "grey, in a colour set"),
    "missing": (Path.unlink, "missing"),
    "no image": (scribble, "no image"),
}
"""What happens to a file, and what is said of it."""
