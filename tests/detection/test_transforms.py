"""Boxes follow their pixels: a drawn box is found again behind every transform and behind all of them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import PROJECT
from PIL import Image

from src.config import load_config
from src.detection.boxes import box_iou, clip_boxes, has_centre
from src.detection.settings import AugmentSettings
from src.detection.transforms import CROP_ASPECTS, DetectionAugmentation, View, crop, expand, whole_view
from src.tasks import SCHEMAS

COCO_CONFIG = PROJECT / "configs" / "detection" / "yolov3_ghostnetv2_1x_coco.yaml"
FILL = (124, 116, 104)
SIZE = 160
WIDTH, HEIGHT = 240, 180
BOX = (70.0, 50.0, 150.0, 120.0)
UNCHANGED = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0.0}
RED_MARGIN = 128


def build(**settings):
    return DetectionAugmentation(SIZE, FILL, AugmentSettings(**settings))


def blue_image(boxes=(BOX,)):
    """A blue image with red boxes."""
    pixels = np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8)
    for left, top, right, bottom in np.array(boxes, int):
        pixels[top:bottom, left:right] = (255, 0, 0)
    return Image.fromarray(pixels)


def find_red(pixels):
    """(left, top, right, bottom) of the red pixels."""
    red = (pixels[..., 0] > RED_MARGIN) & (pixels[..., 2] < RED_MARGIN)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def assert_follows(view, tolerance=1.0):
    pixels = view.read(blue_image(), FILL)
    expected = view.to_input(clip_boxes(np.array([BOX]), view.corners))[0]
    assert np.abs(expected - find_red(pixels)).max() <= tolerance
    return pixels


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "window",
    [
        (0, 0, WIDTH, HEIGHT),
        (60, 30, 100, 120),  # the box inside
        (100, 70, 120, 110),  # cut off at the left and at the top
        (-75, -31, 400, 300),  # beyond the image
        (-40, 60, 180, 230),  # beyond it at two sides, inside at the others
    ],
)
def test_a_view_moves_boxes_like_pixels(window, flip):
    view = View(*window, SIZE, flip)
    assert_follows(view)
    boxes = np.random.default_rng(0).uniform(0, SIZE, (5, 4))
    assert np.allclose(view.to_input(view.to_image(boxes)), boxes)


def test_a_view_is_exact_to_a_part_of_a_pixel():
    """A box of known grey levels: its share of the edge pixels tells where its edges are."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[:, 21:43] = 255
    view = View(-10, -10, 84, 84, 96)
    pixels = view.read(Image.fromarray(ramp), (0, 0, 0)).astype(float)[48, :, 0] / 255
    left, _, right, _ = view.to_input(np.array([(21.0, 0.0, 43.0, 64.0)]))[0]
    centre = (pixels * (np.arange(96) + 0.5)).sum() / pixels.sum()
    assert centre == pytest.approx((left + right) / 2, abs=0.05)
    assert pixels.sum() == pytest.approx(right - left, abs=0.1)


def test_the_whole_image_keeps_its_aspect_and_is_padded_at_the_end():
    pixels = assert_follows(whole_view(WIDTH, HEIGHT, SIZE))
    rows = SIZE * HEIGHT // WIDTH
    assert (pixels[rows:] == FILL).all() and not (pixels[:rows] == FILL).all(2).any()
    assert whole_view(3, 1000, 320).scaled == (1, 320)
    mirrored = replace(whole_view(WIDTH, HEIGHT, SIZE), flip=True).read(blue_image(), FILL)
    assert np.array_equal(mirrored[:rows], pixels[:rows, ::-1]) and (mirrored[rows:] == FILL).all()


def test_a_window_beside_the_image_is_padding():
    assert (View(WIDTH + 5, 0, 50, 50, SIZE).read(blue_image(), FILL) == FILL).all()


def test_expansion():
    factors = []
    for seed in range(50):
        view = expand(whole_view(WIDTH, HEIGHT, SIZE), (1.0, 2.0), np.random.default_rng(seed))
        factors.append(view.width / WIDTH)
        left, top, right, bottom = view.corners
        assert left <= 0 and top <= 0 and right >= WIDTH and bottom >= HEIGHT
        assert view.height / HEIGHT == pytest.approx(view.width / WIDTH, abs=0.01)
        assert_follows(view)
    assert 1 <= min(factors) < 1.1 and 1.9 < max(factors) <= 2


def test_crop():
    """Every window is inside the old one, has the wanted IoU, aspect and size, and the centre of a box."""
    whole, boxes = whole_view(WIDTH, HEIGHT, SIZE), np.array([BOX, (20.0, 20.0, 60.0, 60.0)])
    kept = cut = 0
    for seed in range(60):
        view = crop(whole, boxes, (0.05,), 0.3, np.random.default_rng(seed))
        if view == whole:
            kept += 1
            continue
        left, top, right, bottom = view.corners
        assert left >= 0 and top >= 0 and right <= WIDTH and bottom <= HEIGHT
        assert view.width >= 0.3 * WIDTH - 1 and view.height >= 0.3 * HEIGHT - 1
        assert CROP_ASPECTS[0] <= view.height / view.width <= CROP_ASPECTS[1]
        assert box_iou(view.corners, boxes).min() >= 0.05 and has_centre(view.corners, boxes).any()
        inside = clip_boxes(boxes[:1], view.corners)
        if has_centre(view.corners, boxes)[0]:
            cut += not np.array_equal(inside, boxes[:1])
            assert_follows(view)
    assert 20 < kept < 40 and cut > 5


def draw_coco_like(generator):
    """Draw a size and boxes as COCO has them: on average 7 a image, of all sizes, from 2 % of the image's side on."""
    size = np.array((640, 480) if generator.random() < 0.7 else (480, 640))
    count = max(1, int(generator.geometric(1 / 7)))
    sides = np.minimum(np.exp(generator.uniform(np.log(0.02), np.log(0.9), (count, 2))), 1) * size
    corners = generator.uniform(0, 1, (count, 2)) * (size - sides)
    return size, np.concatenate((corners, corners + sides), 1)


def test_the_recipe_crops_half_of_the_images():
    """Minimum IoUs with every box of many are hardly ever met, which leaves "whole" and "any crop" to draw from."""
    settings = load_config(COCO_CONFIG, SCHEMAS).augment
    assert settings.crop_min_ious == AugmentSettings().crop_min_ious == (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.0)
    generator, cropped = np.random.default_rng(0), 0
    for _ in range(300):
        (width, height), boxes = draw_coco_like(generator)
        whole = whole_view(int(width), int(height), 320)
        view = crop(whole, boxes, settings.crop_min_ious, settings.crop_min_size, generator)
        cropped += view != whole
        assert view == whole or has_centre(view.corners, boxes).any()
    assert 0.42 < cropped / 300 < 0.62


def test_no_crop_and_an_image_without_boxes():
    whole = whole_view(WIDTH, HEIGHT, SIZE)
    assert crop(whole, np.array([BOX]), (), 0.3, np.random.default_rng(0)) == whole
    views = [crop(whole, np.zeros((0, 4)), (0.9,), 0.3, np.random.default_rng(seed)) for seed in range(20)]
    assert any(view != whole for view in views)


def test_the_whole_chain():
    """The box is found in the pixels; if its centre is out of the crop, so is the box."""
    transform = build(**UNCHANGED, crop_min_ious=(0.0, 0.4))
    found = flipped = 0
    for seed in range(100):
        second = (10.0, 140.0, 30.0, 160.0)  # keeps crops without the first box possible
        boxes, labels = np.array([BOX, second], np.float32), np.array([3, 5], np.int32)
        pixels, moved, kept = transform(blue_image(), boxes, labels, np.random.default_rng(seed))
        assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
        assert moved.dtype == np.float32 and len(moved) == len(kept) >= 1
        assert (moved >= 0).all() and (moved <= SIZE).all()
        if 3 in kept:
            found += 1
            assert np.abs(moved[kept == 3][0] - find_red(pixels)).max() <= 1
            flipped += transform.draw_view(WIDTH, HEIGHT, boxes, np.random.default_rng(seed)).flip
    assert found > 60 and 20 < flipped < found - 20


def test_colours_change_and_padding_does_not():
    transform = build(expand_probability=0.0, crop_min_ious=(), flip=0.0)
    seen = set()
    for seed in range(20):
        boxes = np.array([BOX], np.float32)
        pixels, moved, _ = transform(blue_image(), boxes, np.zeros(1, np.int32), np.random.default_rng(seed))
        assert (pixels[SIZE * HEIGHT // WIDTH :] == FILL).all()
        assert np.allclose(moved[0], np.array(BOX) * SIZE / WIDTH)
        seen.add(tuple(pixels[0, 0]))
    assert len(seen) > 10


def test_the_filler_of_an_expansion_changes_with_the_image():
    transform = build(expand_probability=1.0, expand_ratio=(1.9, 2.0), crop_min_ious=())
    changed = 0
    for seed in range(20):
        boxes = np.array([BOX], np.float32)
        pixels, _, _ = transform(blue_image(), boxes, np.zeros(1, np.int32), np.random.default_rng(seed))
        view = transform.draw_view(WIDTH, HEIGHT, boxes, np.random.default_rng(seed))
        filler = view.read(blue_image(), FILL)[: view.scaled[1]] == FILL
        colours = np.unique(pixels[: view.scaled[1]][filler.all(2)], axis=0)
        assert len(colours) == 1 and (pixels[view.scaled[1] :] == FILL).all()
        changed += (colours[0] != FILL).any()
    assert changed > 10


def test_an_image_without_boxes_trains_as_background():
    transform = build()
    pixels, boxes, labels = transform(
        blue_image(), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.random.default_rng(1)
    )
    assert pixels.shape == (SIZE, SIZE, 3) and boxes.shape == (0, 4) and labels.shape == (0,)
