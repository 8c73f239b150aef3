"""Draw one handwritten digit on plain paper, or several on a cluttered page with their masks."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SCENE_SIZE = 128
DIGITS_PER_SCENE = (2, 5)
DIGIT_SIDE = (36, 60)  # pixels, of a tile; the ink covers about two thirds of its width
MAX_ROTATION = 12.0  # degrees; too small to turn a 6 into a 9
MAX_OVERLAP = 0.1  # of the boxes of two digits, as a fraction of the smaller box
MIN_CONTRAST = 50  # grey values between the ink and the page below it
PLACEMENT_TRIES = 40


@dataclass
class Placed:
    """A digit in a scene.

    Attributes:
        source: Index of the digit image.
        mask: Visible pixels, bool [SCENE_SIZE, SCENE_SIZE].
    """

    source: int
    mask: np.ndarray


def enlarge(digit: np.ndarray, side: int, angle: float = 0.0, margin: int = 0) -> np.ndarray:
    """Enlarge an 8x8 digit with values 0..16 to ink coverage in 0..1.

    Args:
        side: Height and width of the result in pixels.
        angle: Rotation in degrees, counter-clockwise.
        margin: Width in source pixels of a blank border, which is added first. With a border,
            strokes at the edge of the 8x8 image end smoothly.

    Returns:
        float32 [side, side].
    """
    tile = Image.fromarray(np.pad(digit, margin).astype(np.float32) / 16)
    tile = tile.resize((side, side), Image.Resampling.BICUBIC)
    if angle:
        tile = tile.rotate(angle, Image.Resampling.BICUBIC)
    return np.asarray(tile).clip(0, 1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Enlarge standard normal noise [cells, cells] to float32 [size, size]."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def draw_card(rng, coverage: np.ndarray, paper: tuple, ink: tuple) -> np.ndarray:
    """Draw one digit on plain paper.

    The colours of paper and ink vary by at most 6 grey values. A larger variation would increase
    the cycle error of every translator, because the other domain does not determine it.

    Returns:
        uint8 [S, S, 3] for a ``coverage`` of [S, S].
    """
    size = len(coverage)
    back = np.asarray(paper) + rng.uniform(-6, 6, 3)
    front = np.asarray(ink) + rng.uniform(-6, 6, 3)
    shade = 3 * smooth_noise(rng, size, 4)[..., None] + rng.normal(0, 2, (size, size, 1))
    alpha = _stroke(coverage)[..., None]
    return (back + (front - back) * alpha + shade).round().clip(0, 255).astype(np.uint8)


def draw_scene(rng, digits: np.ndarray, deck) -> tuple[np.ndarray, list[Placed]]:
    """Draw a page with several digits.

    Args:
        digits: Digit images [N, 8, 8].
        deck: Iterator of indices into ``digits``.

    Returns:
        The page as uint8 [SCENE_SIZE, SCENE_SIZE, 3], and its digits. Their masks are disjoint:
        where two digits overlap, the later one covers the other.
    """
    page = _page(rng)
    placed, boxes = [], []
    for _ in range(rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)):
        source = next(deck)
        side = int(rng.integers(DIGIT_SIDE[0], DIGIT_SIDE[1] + 1))
        angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
        tile = enlarge(digits[source], side, angle, margin=1)
        spot = _free_spot(rng, tile > 0.5, boxes)
        if spot is None:  # the page is full
            continue
        y, x = spot
        window = page[y : y + side, x : x + side]
        # Keeps the ink visible on dark parts of the page.
        darkest = window[tile > 0.5].mean(1).min() - MIN_CONTRAST
        ink = rng.uniform(0.2, 1) * max(darkest, 20) + rng.uniform(-20, 20, 3)
        window += (ink.clip(0, 255) - window) * _stroke(tile)[..., None]
        mask = np.zeros((SCENE_SIZE, SCENE_SIZE), bool)
        mask[y : y + side, x : x + side] = tile > 0.5
        for other in placed:
            other.mask &= ~mask
        placed.append(Placed(source, mask))
        boxes.append(bounding_box(mask))
    page += 6 * rng.standard_normal(page.shape, np.float32)
    return page.round().clip(0, 255).astype(np.uint8), placed


def bounding_box(mask: np.ndarray) -> list[int]:
    """COCO's bounding box of a non-empty mask: left, top, width, height in pixels."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _stroke(coverage: np.ndarray) -> np.ndarray:
    # An enlarged 8x8 image is blurred over several pixels. Contrast around 0.5, the threshold of
    # the mask, makes the visible edge agree with the labelled one.
    return ((coverage - 0.25) * 2).clip(0, 1)


def _page(rng) -> np.ndarray:
    """Draw paper with shadows and stray pen lines, float32 [SCENE_SIZE, SCENE_SIZE, 3].

    The shadows are as dark as light ink and the lines as dark as dark ink, so no threshold
    separates the digits from the page.
    """
    size = SCENE_SIZE
    shadow = 28 * smooth_noise(rng, size, 5) + 8 * smooth_noise(rng, size, 20)
    light = (rng.uniform(170, 225) + shadow)[..., None] + rng.uniform(-15, 15, 3)
    page = light.astype(np.float32).clip(95, 250)
    lines = Image.new('L', (size * 4, size * 4))  # four times as large, against aliasing
    pen = ImageDraw.Draw(lines)
    for _ in range(rng.integers(1, 4)):
        ends = rng.uniform(0, size * 4, 4).tolist()
        pen.line(ends, fill=255, width=int(rng.integers(4, 9)))
    alpha = np.asarray(lines.resize((size, size), Image.Resampling.BOX))[..., None] / 255
    page += (rng.uniform(20, 110, 3) - page) * alpha
    return page


def _free_spot(rng, tile: np.ndarray, boxes: list):
    """Top and left of a random place for ``tile``, or None if PLACEMENT_TRIES places overlap."""
    left, top, width, height = bounding_box(tile)
    for _ in range(PLACEMENT_TRIES):
        y, x = rng.integers(0, SCENE_SIZE - len(tile) + 1, 2)
        box = (x + left, y + top, width, height)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in boxes):
            return y, x
    return None


def _overlap(a, b) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])
