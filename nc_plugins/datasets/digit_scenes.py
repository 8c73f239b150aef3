"""Draw handwritten digits: one on a card, or several on a cluttered page with their masks."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SCENE_SIZE = 128
DIGITS_PER_SCENE = (2, 5)
DIGIT_SIDE = (36, 60)  # pixels of the whole tile; the ink covers about two thirds of its width
MAX_ROTATION = 12.0  # degrees; far from where a 6 turns into a 9
MAX_OVERLAP = 0.1  # of the boxes of two digits, as a share of the smaller box
MIN_CONTRAST = 50  # grey levels by which ink is darker than the page where it lies
PLACEMENT_TRIES = 40


@dataclass
class Placed:
    """A digit in a scene: ``source`` is its index in the set, ``mask`` its visible pixels."""

    source: int
    mask: np.ndarray


def enlarge(digit: np.ndarray, side: int, angle: float = 0.0, margin: int = 0) -> np.ndarray:
    """Ink coverage in 0..1, float32 [side, side], of an 8x8 digit with values 0..16.

    ``margin`` blank source pixels are added all around first, so that strokes that touch the
    edge of the 8x8 image end smoothly; ``angle`` in degrees, counter-clockwise.
    """
    tile = Image.fromarray(np.pad(digit, margin).astype(np.float32) / 16)
    tile = tile.resize((side, side), Image.Resampling.BICUBIC)
    if angle:
        tile = tile.rotate(angle, Image.Resampling.BICUBIC)
    return np.asarray(tile).clip(0, 1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Standard normal noise on a cells x cells grid, enlarged to float32 [size, size]."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def draw_card(rng, coverage: np.ndarray, paper: tuple, ink: tuple) -> np.ndarray:
    """One digit on plain paper, both colours a little different each time, uint8 [S, S, 3].

    The spread is small on purpose: a translator cannot guess it back from the other domain, so
    it bounds the cycle error from below.
    """
    size = len(coverage)
    back = np.asarray(paper) + rng.uniform(-6, 6, 3)
    front = np.asarray(ink) + rng.uniform(-6, 6, 3)
    shade = 3 * smooth_noise(rng, size, 4)[..., None] + rng.normal(0, 2, (size, size, 1))
    alpha = _stroke(coverage)[..., None]
    return (back + (front - back) * alpha + shade).round().clip(0, 255).astype(np.uint8)


def draw_scene(rng, digits: np.ndarray, deck) -> tuple[np.ndarray, list[Placed]]:
    """A page with several digits: uint8 [SCENE_SIZE, SCENE_SIZE, 3] and what lies on it.

    ``deck`` yields indices into ``digits`` ([N, 8, 8]). Masks are disjoint: where two digits
    touch, the later one is on top.
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
        # Ink must stay visible on dark patches of the page too.
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
    """COCO's box of a mask that is not empty: left, top, width, height in pixels."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _stroke(coverage: np.ndarray) -> np.ndarray:
    # The blur of an enlarged 8x8 image is several pixels wide; steepened about the 0.5 where
    # the mask ends, the visible edge and the labelled one agree.
    return ((coverage - 0.25) * 2).clip(0, 1)


def _page(rng) -> np.ndarray:
    """Paper with shadows and stray pen lines, float32 [S, S, 3].

    The shadows reach the grey of light ink and the lines that of dark ink, so no threshold
    separates the digits; their shapes do.
    """
    size = SCENE_SIZE
    shadow = 28 * smooth_noise(rng, size, 5) + 8 * smooth_noise(rng, size, 20)
    light = (rng.uniform(170, 225) + shadow)[..., None] + rng.uniform(-15, 15, 3)
    page = light.astype(np.float32).clip(95, 250)
    lines = Image.new('L', (size * 4, size * 4))  # drawn at four times the size against jaggies
    pen = ImageDraw.Draw(lines)
    for _ in range(rng.integers(1, 4)):
        ends = rng.uniform(0, size * 4, 4).tolist()
        pen.line(ends, fill=255, width=int(rng.integers(4, 9)))
    alpha = np.asarray(lines.resize((size, size), Image.Resampling.BOX))[..., None] / 255
    page += (rng.uniform(20, 110, 3) - page) * alpha
    return page


def _free_spot(rng, tile: np.ndarray, boxes: list):
    """Top left corner for ``tile``, or None after PLACEMENT_TRIES crowded ones."""
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
