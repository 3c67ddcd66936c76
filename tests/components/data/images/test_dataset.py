"""Images as examples: read from files or an array, changed as their numbers say, whoever reads them and when."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import DAMAGES, make_pixels, write_files
from torch.utils.data import DataLoader

from components.data.images import augmentation
from components.data.images.augmentation import Augmentation, erase, mix, move
from components.data.images.dataset import ImageCollator, LabelledImages, PixelStatistics
from components.data.images.files import BadImage, open_images
from components.data.images.inspection import CHUNK, inspect_images, measure_pixels

PLAIN = PixelStatistics((0.0,), (1 / 255,))
EVERYTHING = Augmentation(
    crop_scale=0.5, rand_augment=9, flip=0.5, shift=3, rotate=20.0, zoom=0.1, erase=0.5, mixup=0.8, cutmix=1.0
)


def opened(places, in_chans=1, converts_grey=False, size_hint=28):
    return open_images(
        [str(place) for place in places], in_chans=in_chans, converts_grey=converts_grey, size_hint=size_hint
    )


def array_places(tmp_path, pixels):
    np.save(tmp_path / "images.npy", pixels)
    return [f"{tmp_path / 'images.npy'}#{row}" for row in range(len(pixels))]


def dataset(tmp_path, num=12, seed=5, **changes):
    source = opened(array_places(tmp_path, make_pixels(num)))
    return LabelledImages(source, np.arange(num) % 3, img_size=28, augmentation=Augmentation(**changes), seed=seed)


def draws(num, value=0.5, **given):
    """Numbers in the middle of their range, which change nothing, but for those given by their place's name."""
    table = torch.full((num, augmentation.NUM_DRAWS), value, dtype=torch.float64)
    for name, number in given.items():
        table[:, getattr(augmentation, name)] = number
    return table


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_files_and_rows_of_an_array_are_the_same_images(tmp_path, channels):
    pixels = make_pixels(5, channels=channels)
    files = opened(write_files(tmp_path / "files", pixels, ".png"), in_chans=channels)
    rows = opened(array_places(tmp_path, pixels)[::-1], in_chans=channels)
    assert len(files) == len(rows) == 5
    for row in range(5):
        assert files.read(row).shape == (channels, 28, 28)
        assert torch.equal(files.read(row), rows.read(4 - row))


def test_reading_an_array_leaves_the_file_alone(tmp_path):
    places = array_places(tmp_path, make_pixels(2))
    before = (tmp_path / "images.npy").read_bytes()
    opened(places).read(0).fill_(7)
    assert (tmp_path / "images.npy").read_bytes() == before


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_bad_file_is_named(tmp_path, kind, suffix):
    paths = write_files(tmp_path, make_pixels(3, channels=3), suffix)
    damage, words = DAMAGES[kind]
    damage(paths[1])
    source = opened(paths, in_chans=3)
    source.read(0)
    with pytest.raises(BadImage, match=f"001{suffix}: {words}"):
        source.read(1)


def test_a_grey_image_can_be_repeated_and_a_colour_one_made_grey(tmp_path):
    (grey,) = write_files(tmp_path / "grey", make_pixels(1), ".png")
    read = opened([grey], in_chans=3, converts_grey=True).read(0)
    assert read.shape == (3, 28, 28)
    assert torch.equal(read[0], read[2])
    (colour,) = write_files(tmp_path / "colour", make_pixels(1, channels=3), ".png")
    assert opened([colour]).read(0).shape == (1, 28, 28)


def test_an_image_lies_as_its_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(make_pixels(1)[0][:20]).save(tmp_path / "turned.jpg", exif=exif)
    assert opened([tmp_path / "turned.jpg"]).read(0).shape == (1, 28, 20)


def test_a_large_photograph_is_decoded_at_a_fraction_of_its_size(tmp_path):
    (path,) = write_files(tmp_path, make_pixels(1, size=512, channels=3))
    assert opened([path], in_chans=3, size_hint=100).read(0).shape == (3, 128, 128)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (make_pixels(2, channels=3), r"uint8 of shape \(2, 28, 28, 3\); images with data.in_chans: 1"),
        (make_pixels(2).astype(np.float32), "float32 of shape"),
        (None, "missing"),
    ],
)
def test_an_array_of_another_kind_is_refused(tmp_path, pixels, words):
    if pixels is not None:
        np.save(tmp_path / "images.npy", pixels)
    with pytest.raises(ValueError, match=f"images.npy: {words}"):
        opened([f"{tmp_path / 'images.npy'}#0"])


def test_a_row_that_an_array_does_not_have_is_a_bad_image(tmp_path):
    array_places(tmp_path, make_pixels(2))
    with pytest.raises(BadImage, match="image 2 of an array of 2"):
        opened([f"{tmp_path / 'images.npy'}#2"]).read(0)


# -- looking at all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [7, CHUNK + 3])
def test_statistics_are_those_of_all_pixels(tmp_path, num):
    pixels = make_pixels(num, size=4)
    found = inspect_images(opened(array_places(tmp_path, pixels)), img_size=4, num_threads=2)
    assert found.problems == {}
    assert found.statistics.mean == pytest.approx([(pixels / 255.0).mean()], abs=1e-12)
    assert found.statistics.std == pytest.approx([(pixels / 255.0).std()], abs=1e-12)


def test_problems_are_found_and_the_rest_is_cached(tmp_path):
    pixels = make_pixels(5, channels=3)
    paths = write_files(tmp_path, pixels, ".png")
    for row, (damage, _) in enumerate(list(DAMAGES.values())[:3]):
        damage(paths[row])
    cache = np.zeros((5, 3, 28, 28), np.uint8)
    found = inspect_images(opened(paths, in_chans=3), img_size=28, num_threads=2, cache=cache)
    assert list(found.problems) == [0, 1, 2]
    assert np.array_equal(cache[3:], pixels[3:].transpose(0, 3, 1, 2))
    assert not cache[:3].any()
    assert found.statistics.mean == pytest.approx((pixels[3:] / 255.0).mean((0, 1, 2)), abs=1e-12)


def test_an_array_that_is_too_short_is_found_out(tmp_path):
    places = array_places(tmp_path, make_pixels(3))
    found = inspect_images(opened([*places, f"{tmp_path / 'images.npy'}#3"]), img_size=28, num_threads=1)
    assert found.problems == {3: "image 3 of an array of 3: missing"}
    with pytest.raises(ValueError, match=r"images.npy#x: 'x' is no row of an array"):
        opened([f"{tmp_path / 'images.npy'}#x"])


def test_nothing_to_measure_is_none_and_one_colour_is_left_as_it_is():
    assert measure_pixels([]) is None
    assert measure_pixels([np.full((2, 1, 3, 3), 9, np.uint8)]).std == (1 / 255,)


def test_normalised_training_pixels_have_mean_zero_and_deviation_one():
    pixels = make_pixels(9, channels=3).transpose(0, 3, 1, 2)
    normalised = measure_pixels([pixels]).normalise(torch.from_numpy(pixels.copy()))
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


# -- changing them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 3)])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("resamples", [False, True])
def test_shift_and_flip_move_whole_pixels_either_way(down, right, flips, resamples):
    """Bilinear resampling without turn or zoom gives the same pixels as indexing."""
    pixels = torch.from_numpy(make_pixels(2, size=9, channels=3).transpose(0, 3, 1, 2).copy())
    given = {"DY": (down + 3.5) / 7, "DX": (right + 3.5) / 7, "FLIP": 0.0 if flips else 0.9}
    moved = move(pixels, draws(2, **given), Augmentation(shift=3, flip=0.5, rotate=1e-9 if resamples else 0.0))
    expected = torch.zeros_like(pixels)
    for y in range(9):
        for x in range(9):
            if 0 <= y - down < 9 and 0 <= x - right < 9:
                expected[:, :, y, x] = pixels[:, :, y - down, x - right]
    expected = expected.flip(3) if flips else expected
    torch.testing.assert_close(moved.float(), expected.float(), atol=1e-2, rtol=0)


def test_a_quarter_turn_and_a_zoom():
    pixels = torch.from_numpy(make_pixels(1, size=8)[None].copy()).float()
    turned = move(pixels, draws(1, ROTATE=1.0), Augmentation(rotate=90.0))
    torch.testing.assert_close(turned, pixels.rot90(1, (2, 3)), atol=1e-2, rtol=0)
    halved = move(torch.full((1, 1, 8, 8), 100.0), draws(1, ZOOM=1.0), Augmentation(zoom=0.99))
    assert halved.sum() == pytest.approx(100.0 * 64 / 1.99**2, rel=0.1)


def test_an_erased_rectangle_has_the_area_that_was_drawn():
    pixels = torch.ones(3, 1, 20, 20)
    numbers = draws(3, ERASE=0.1, AREA=0.5, ASPECT=0.5)
    numbers[1, augmentation.ERASE] = 0.9
    erased = erase(pixels, numbers, 0.5)
    assert (erased[1] == 1).all()
    share = float((erased[0] == 0).float().mean())
    assert share == pytest.approx(0.175, abs=0.03)
    assert torch.equal(pixels, torch.ones(3, 1, 20, 20))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_makes_shares_and_follows_the_first_images_number(kind):
    pixels, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    changes = Augmentation(**{kind: 1.0})
    mixed, shares = mix(pixels, labels, draws(4, MIX=0.3), changes, 3)
    again, _ = mix(pixels, labels, draws(4, MIX=0.3), changes, 3)
    other, _ = mix(pixels, labels, draws(4, MIX=0.31), changes, 3)
    assert torch.equal(mixed, again)
    assert not torch.equal(mixed, other)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert ((shares > 0).sum(1) <= 2).all()


def test_every_change_is_a_pure_function_of_seed_epoch_and_row(tmp_path):
    data = dataset(tmp_path, **vars(EVERYTHING))
    collate = ImageCollator(PLAIN, augmentation=EVERYTHING, num_classes=3)
    plan = [[3, 1, 7, 0], [2, 11, 5]]

    def batches(epoch, num_workers):
        # Whatever the generators have done before
        random.seed(num_workers)
        np.random.seed(num_workers)
        torch.manual_seed(num_workers)
        data.begin_epoch(epoch)
        before = torch.get_rng_state()
        loader = DataLoader(
            data, batch_sampler=plan, collate_fn=collate, num_workers=num_workers, generator=torch.Generator()
        )
        found = list(loader)
        assert torch.equal(torch.get_rng_state(), before)
        return found

    alone, helped, later = batches(4, 0), batches(4, 2), batches(5, 0)
    for ours, theirs in zip(alone, helped, strict=True):
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        assert torch.equal(ours["labels"], theirs["labels"])
    assert not torch.equal(alone[0]["pixel_values"], later[0]["pixel_values"])
    assert alone[0]["pixel_values"].shape == (4, 1, 28, 28)


def test_without_augmentation_images_are_resized_and_their_middle_is_kept(tmp_path):
    (path,) = write_files(tmp_path, make_pixels(1, size=64)[:, :32], ".png")
    data = LabelledImages(opened([path]), None, img_size=16)
    assert data[0]["image"].shape == (1, 16, 16)
    assert set(data[0]) == {"image"}
    batch = ImageCollator(PLAIN)([data[0]])
    assert list(batch) == ["pixel_values"]
    assert torch.equal(ImageCollator(PLAIN, flips=True)([data[0]])["pixel_values"], batch["pixel_values"].flip(3))


def test_a_bad_image_is_an_error_or_blank(tmp_path):
    paths = write_files(tmp_path, make_pixels(2), ".png")
    paths[1].unlink()
    with pytest.raises(BadImage):
        LabelledImages(opened(paths), None, img_size=28)[1]
    statistics = PixelStatistics((0.25,), (0.5,))
    blind = LabelledImages(opened(paths), None, img_size=28, blind=statistics.mean_image(28))
    with pytest.warns(UserWarning, match="row 1: .*001.png: missing; answered for"):
        batch = ImageCollator(statistics)([blind[1]])
    assert batch["pixel_values"].abs().max() < 0.01


def test_labels_and_images_are_counted(tmp_path):
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        LabelledImages(opened(array_places(tmp_path, make_pixels(2))), np.arange(3), img_size=28)
