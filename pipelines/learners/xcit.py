"""Images in a competition: files to normalised pixels, bad images found beforehand, pictures of attention."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import nn

from components.data.images.augmentation import Augmentation
from components.data.images.dataset import ImageCollator, LabelledImages, PixelStatistics
from components.data.images.files import ArrayImages, ImageSource, open_images
from components.data.images.inspection import Inspection, inspect_images
from components.files.atomic import read_json, write_json
from components.models.shared.inference import Batch
from components.models.xcit.features import class_attention_maps, cross_covariance_maps
from components.models.xcit.folding import fold_for_inference
from components.models.xcit.model import XCiT, load_xcit, save_xcit
from components.models.xcit.weights import MEAN, STD
from pipelines.competitions.competition import Competition
from pipelines.config.build import build_model
from pipelines.config.schema import Experiment
from pipelines.config.sections.xcit import Images
from pipelines.errors import ConfigError, PodiumError
from pipelines.learners.attention_figures import draw_class_attention, draw_cross_covariance
from pipelines.learners.learner import FoldJob
from pipelines.learners.neural import NeuralLearner
from pipelines.runs.record import ImageFacts, Normalisation, Prepared
from pipelines.runs.run import Run, check_disk
from pipelines.runs.scoring import encode_labels

FOUND = "images.json"
CACHE = "cache"
MOST_NAMED = 5
NUM_PICTURES = 8
AUGMENTATION = tuple(Augmentation.__dataclass_fields__)


class XCiTLearner(NeuralLearner):
    """Trains and predicts with an XCiT."""

    def __init__(self, experiment: Experiment, competition: Competition, run: Run) -> None:
        super().__init__(experiment, competition, run)
        assert isinstance(experiment.data, Images)
        if competition.images is None:
            raise ConfigError(f"data.name: images, but {competition.name} has none; needs the data of its own kind")
        self.data_section, self.column = experiment.data, competition.frame_column(competition.images.column)
        self.augmentation = Augmentation(**{name: getattr(self.data_section, name) for name in AUGMENTATION})
        self._check_mixing()

    def _check_mixing(self) -> None:
        if self.augmentation.mixes and self.competition.task not in ("binary", "multiclass"):
            key = "mixup" if self.augmentation.mixup else "cutmix"
            raise ConfigError(
                f"data.{key}: {getattr(self.augmentation, key)} mixes classes, and {self.competition.name} is "
                f"{self.competition.task}; needs 0"
            )

    # -- before training ---------------------------------------------------------------------------------------------

    def prepare(self, train: DataFrame, test: DataFrame, *, also: Sequence[str] = ()) -> Prepared:
        """Look at every image; write `images.json`, which says how pixels are normalised and which rows are skipped."""
        if getattr(self.experiment.model, "checkpoint", None) is not None:
            self._create_model()  # weights that are missing or do not fit end a run before it begins
        found = self._inspect(train, self._create_cache(train))
        problems = {"training": _by_id(train, found), "test": _by_id(test, self._inspect(test, None))}
        self._refuse(problems)
        if self.data_section.normalisation == "imagenet":
            statistics = PixelStatistics(MEAN, STD)
        elif found.statistics is None:
            raise PodiumError(f"{self.competition.name}: none of {len(train)} training images can be used")
        else:
            statistics = found.statistics
        made = ImageFacts(
            normalisation=Normalisation(mean=tuple(statistics.mean), std=tuple(statistics.std)),
            num_skipped={role: len(rows) for role, rows in problems.items()},
            skipped=problems,
        )
        made.write(self.run.path / FOUND)
        return {"images": made}

    def _inspect(self, frame: DataFrame, cache: NDArray[np.uint8] | None) -> Inspection:
        threads = max(1, self.data_section.num_workers)
        return inspect_images(self._open(frame), img_size=self.data_section.img_size, num_threads=threads, cache=cache)

    def _refuse(self, problems: Mapping[str, Mapping[str, str]]) -> None:
        lines = [f"{role} row {what}" for role, rows in problems.items() for what in rows.values()]
        if lines and self.data_section.on_bad_image == "error":
            more = f" (and {len(lines) - MOST_NAMED} more)" if len(lines) > MOST_NAMED else ""
            raise PodiumError(
                f"{self.competition.name}: {'; '.join(lines[:MOST_NAMED])}{more}; mend or remove them, or set "
                "data.on_bad_image=skip"
            )

    @cached_property
    def _found(self) -> ImageFacts:
        return ImageFacts.read(self.run.path / FOUND)

    @cached_property
    def _statistics(self) -> PixelStatistics:
        stated = self._found.normalisation
        return PixelStatistics(stated.mean, stated.std)

    def _training_rows(self, train: DataFrame) -> DataFrame:
        return train[~train["id"].isin(list(self._found.skipped["training"]))]

    # -- pixels ------------------------------------------------------------------------------------------------------

    def _open(self, frame: DataFrame) -> ImageSource:
        section = self.data_section
        # A random crop of a photograph needs more pixels than come out of it
        hint = section.img_size * (2 if section.crop_scale < 1.0 else 1)
        places = frame[self.column].tolist()
        return open_images(places, in_chans=section.in_chans, converts_grey=section.convert_grey, size_hint=hint)

    def _create_cache(self, train: DataFrame) -> NDArray[np.uint8] | None:
        """An empty file for the decoded training images, and their ids beside it."""
        size = self.data_section.img_size
        if not self.data_section.cache or isinstance(self._open(train), ArrayImages):
            return None
        shape = (len(train), self.data_section.in_chans, size, size)
        folder = self.run.path / CACHE
        folder.mkdir()
        check_disk(folder, int(np.prod(shape)))
        write_json(folder / "ids.json", train["id"].tolist())
        return np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)

    @cached_property
    def _cached(self) -> tuple[NDArray[np.uint8], Mapping[str, int]] | None:
        folder = self.run.path / CACHE
        if not folder.is_dir():
            return None
        rows = {row_id: row for row, row_id in enumerate(read_json(folder / "ids.json"))}
        return np.load(folder / "images.npy", mmap_mode="r"), rows

    def _encode(self, frame: DataFrame, *, has_labels: bool) -> LabelledImages:
        return self._training_images(frame) if has_labels else self._plain_images(frame)

    def _training_images(self, frame: DataFrame) -> LabelledImages:
        source = self._open(frame)
        if self._cached is not None:
            pixels, rows = self._cached
            source = ArrayImages(pixels, [rows[row_id] for row_id in frame["id"]])
        return LabelledImages(
            source,
            np.asarray(encode_labels(self.competition, frame)),
            img_size=self.data_section.img_size,
            augmentation=self.augmentation,
            seed=self.experiment.seed,
        )

    def _plain_images(self, frame: DataFrame) -> LabelledImages:
        size = self.data_section.img_size
        blind = self._statistics.mean_image(size) if self.data_section.on_bad_image == "skip" else None
        return LabelledImages(self._open(frame), None, img_size=size, blind=blind)

    def _collator(self) -> Callable[[list[Any]], Batch]:
        return ImageCollator(self._statistics, augmentation=self.augmentation, num_classes=self._num_classes or 0)

    def _prediction_collators(self) -> Sequence[Callable[[list[Any]], Batch]]:
        views = [False, True] if self.data_section.tta == "flip" else [False]
        return [ImageCollator(self._statistics, flips=flips) for flips in views]

    # -- weights -----------------------------------------------------------------------------------------------------

    def _create_model(self) -> nn.Module:
        return build_model(self.experiment, num_classes=self._num_classes, task=self.competition.task)

    def _load_model(self, folder: Path) -> nn.Module:
        return load_xcit(folder)

    def _load_predictor(self, folder: Path) -> nn.Module:
        return fold_for_inference(load_xcit(folder))

    def _save_model(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, XCiT)
        save_xcit(model, folder)

    # -- pictures ----------------------------------------------------------------------------------------------------

    def draw_figures(self, job: FoldJob, checkpoint: Path, folder: Path) -> Sequence[Path]:
        """Where the class token looks on a few validation images, and which channels attend to which."""
        rows = (job.train if job.valid is None else job.valid).head(NUM_PICTURES)
        model = load_xcit(checkpoint)
        data = self._plain_images(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bad images, which were spoken of
            examples = [data[row] for row in range(len(rows))]
        pixel_values = ImageCollator(self._statistics)(examples)["pixel_values"]
        images = [example["image"].numpy().transpose(1, 2, 0) for example in examples]
        with torch.inference_mode():
            guesses = model.eval()(pixel_values).logits.argmax(-1).tolist()
        return [
            draw_class_attention(
                images,
                class_attention_maps(model, pixel_values).mean(2).numpy(),
                self._titles(rows, guesses),
                folder / f"{job.name}_class_attention.png",
            ),
            draw_cross_covariance(
                cross_covariance_maps(model, pixel_values).mean(1).numpy(),
                folder / f"{job.name}_cross_covariance.png",
            ),
        ]

    def _titles(self, rows: DataFrame, guesses: Sequence[int]) -> list[str]:
        names = self.competition.class_names
        if not names:
            return rows["id"].tolist()
        return [
            label if label == names[guess] else f"{label}, taken for {names[guess]}"
            for label, guess in zip(rows["label"], guesses, strict=True)
        ]


def _by_id(frame: DataFrame, found: Inspection) -> dict[str, str]:
    """id -> row, id and problem, in words."""
    ids = frame["id"].tolist()
    return {ids[row]: f"{row} (id {ids[row]}): {problem}" for row, problem in sorted(found.problems.items())}
