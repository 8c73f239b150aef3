"""Write scikit-learn's handwritten digits in the standard layouts of four tasks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from nc_plugins.datasets.digit_scenes import (
    SCENE_SIZE,
    Placed,
    bounding_box,
    draw_card,
    draw_scene,
    enlarge,
)
from nc_plugins.datasets.staging import write_once

CARD_SIZE = 32
HELD_OUT = 297  # of 1,797 digit images; the training sets use the other 1,500
CLASSES = tuple('0123456789')
VOID = 255

# (background, stroke) as RGB. A: chalk on slate; B: ink on paper.
DOMAINS = {'A': ((32, 44, 40), (232, 228, 210)), 'B': ((238, 230, 212), (38, 46, 110))}


def write_digits(
    dest,
    *,
    scenes_train: int = 400,
    scenes_val: int = 100,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> bool:
    """Write the handwritten digits under ``dest`` in four layouts, completely or not at all.

    Layouts (all images are RGB; NNNN is the index of the digit image in ``load_digits()``):
        folder/{train,val}/<0..9>/NNNN.png           32x32, light on dark, 1,500 + 297
        coco/{train,val}/<name>.png                  128x128 scenes of 2 to 5 digits
        coco/annotations/instances_{train,val}.json  COCO instances: uncompressed RLE of the visible
                                                     pixels, category ids 1..10 named '0'..'9', and
                                                     NNNN in the additional key digit_image
        voc/JPEGImages/<name>.jpg                    the same scenes, the same names
        voc/SegmentationClass/<name>.png             mode P, VOC's palette: 0 background, 1..10 the
                                                     digits 0..9, 255 an outline of one pixel
        voc/ImageSets/Segmentation/{train,val}.txt
        unpaired/{train,test}{A,B}/NNNN_labelD.png   32x32, A chalk on slate, B ink on paper, with
                                                     different digit images; 750 + 750, 148 + 149
        manifest.json                                the parameters and the number of files

    The digit images are split before anything is drawn, stratified by class. In every layout, no
    digit image of val or test occurs in training. The same arguments give the same bytes with the
    same versions of numpy, Pillow and scikit-learn. The first scenes do not depend on their number.

    Args:
        dest: Folder to write.
        scenes_train: Number of training scenes.
        scenes_val: Number of validation scenes.
        seed: Seed of the split and of the drawings, 0..2**32-1.
        force: Whether to replace a set that was written with other parameters.
        progress: Called with one line of text per layout.

    Returns:
        True if the set was written, False if ``dest`` already contained it.

    Raises:
        ValueError: If a number of scenes is below 1 or the seed is out of range.
        ImportError: If scikit-learn is missing.
        OSError: If ``dest`` cannot be written. See :func:`write_once` for its subclasses.

    Source: the test part of Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI,
    1998, CC BY 4.0), as in ``sklearn.datasets.load_digits``: 8x8 pixels with values 0..16. The same
    13 people wrote the digits of both splits, so validation scores are optimistic.
    """
    for name, count in (('scenes_train', scenes_train), ('scenes_val', scenes_val)):
        if count < 1:
            raise ValueError(f'{name} must be at least 1, got {count}')
    if not 0 <= seed < 2**32:
        raise ValueError(f'seed must be in 0..2**32-1, got {seed}')
    report = progress or (lambda line: None)
    counts = {'train': scenes_train, 'val': scenes_val}

    def fill(root: Path) -> dict:
        images, labels = _load()
        splits = split_digits(labels, seed)
        _write_folder(root / 'folder', images, labels, splits)
        report(f'folder    {len(splits["train"])} train, {len(splits["val"])} val images')
        for part, (split, count) in enumerate(counts.items()):
            rng = np.random.default_rng([seed, part])
            digits = _write_scenes(root, split, count, rng, images, labels, splits[split])
            report(f'coco, voc {count} {split} scenes, {digits} digits')
        sizes = _write_unpaired(root / 'unpaired', images, labels, splits, seed)
        report('unpaired  ' + ', '.join(f'{count} {name}' for name, count in sizes.items()))
        return {}

    parameters = {
        'set': 'nc_plugins digits',
        'version': 1,  # to be raised when the drawings change
        'scenes_train': scenes_train,
        'scenes_val': scenes_val,
        'seed': seed,
    }
    return write_once(dest, parameters, fill, force=force)


def split_digits(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Split the digit images into 'train' and 'val', stratified by class.

    Returns:
        Sorted indices of the digit images.
    """
    train, val = _halve(np.arange(len(labels)), labels, HELD_OUT, seed)
    return {'train': train, 'val': val}


def voc_palette() -> np.ndarray:
    """Pascal VOC's 256 colours, uint8 [256, 3]. The bits of an index go to R, G, B cyclically."""
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def encode_rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length encoding: column by column, starting with a run of zeros."""
    flat = mask.astype(bool).ravel(order='F')
    starts = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(np.concatenate([[0], starts, [flat.size]]))
    return {'size': list(mask.shape), 'counts': counts.tolist()}


def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise ImportError(
            'the handwritten digits are part of scikit-learn, which is not installed: '
            'pip install scikit-learn'
        ) from e
    digits = load_digits()
    return digits.images, digits.target


def _halve(index: np.ndarray, labels: np.ndarray, second: int, seed: int):
    from sklearn.model_selection import train_test_split

    parts = train_test_split(index, test_size=second, stratify=labels[index], random_state=seed)
    return [np.sort(part) for part in parts]


def _write_folder(root: Path, images, labels, splits) -> None:
    for split, indices in splits.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
        for i in indices:
            grey = (enlarge(images[i], CARD_SIZE) * 255).round().astype(np.uint8)
            path = root / split / CLASSES[labels[i]] / f'{i:04d}.png'
            Image.fromarray(grey).convert('RGB').save(path)


def _write_scenes(root: Path, split: str, count: int, rng, images, labels, pool) -> int:
    """Draw scenes of the digit images ``pool`` and write them in the layouts of COCO and VOC.

    Returns:
        The number of digits in the scenes.
    """
    coco, voc = root / 'coco', root / 'voc'
    folders = [coco / split, coco / 'annotations', voc / 'JPEGImages', voc / 'SegmentationClass']
    for folder in [*folders, voc / 'ImageSets' / 'Segmentation']:
        folder.mkdir(parents=True, exist_ok=True)
    palette = voc_palette().tobytes()
    deck = _deal(rng, pool)
    records, annotations, names = [], [], []
    for number in range(1, count + 1):
        pixels, placed = draw_scene(rng, images, deck)
        name = f'{split}_{number:05d}'
        names.append(name)
        scene = Image.fromarray(pixels)
        scene.save(coco / split / f'{name}.png')
        # mmseg expects .jpg files. This quality changes the scene hardly at all.
        scene.save(voc / 'JPEGImages' / f'{name}.jpg', quality=95, subsampling=0)
        label_map = Image.fromarray(_label_map(placed, labels))
        label_map.putpalette(palette)
        label_map.save(voc / 'SegmentationClass' / f'{name}.png')
        records.append(
            {'id': number, 'file_name': f'{name}.png', 'width': SCENE_SIZE, 'height': SCENE_SIZE}
        )
        for digit in placed:
            number_of = len(annotations) + 1
            annotations.append(_annotation(number_of, number, digit, int(labels[digit.source])))
    listing = {
        'info': {'description': f'handwritten digits (scikit-learn) in scenes, {split}'},
        'images': records,
        'annotations': annotations,
        'categories': [
            {'id': digit + 1, 'name': name, 'supercategory': 'digit'}
            for digit, name in enumerate(CLASSES)
        ],
    }
    (coco / 'annotations' / f'instances_{split}.json').write_text(json.dumps(listing))
    (voc / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    return len(annotations)


def _deal(rng, pool: np.ndarray) -> Iterator[int]:
    """Yield the indices ``pool`` endlessly, in a new random order each time."""
    while True:
        yield from rng.permutation(pool).tolist()


def _annotation(number: int, image: int, digit: Placed, label: int) -> dict:
    return {
        'id': number,
        'image_id': image,
        'category_id': label + 1,
        'bbox': bounding_box(digit.mask),
        'area': int(digit.mask.sum()),
        'iscrowd': 0,
        'segmentation': encode_rle(digit.mask),
        'digit_image': digit.source,
    }


def _label_map(placed: list[Placed], labels) -> np.ndarray:
    """Classes 1..10 inside the masks, and VOID on the background pixels next to a digit."""
    classes = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)
    for digit in placed:
        classes[digit.mask] = labels[digit.source] + 1
    framed = np.pad(classes > 0, 1)
    near = np.zeros_like(classes, bool)
    for dy in range(3):
        for dx in range(3):
            near |= framed[dy : dy + SCENE_SIZE, dx : dx + SCENE_SIZE]
    classes[near & (classes == 0)] = VOID
    return classes


def _write_unpaired(root: Path, images, labels, splits, seed: int) -> dict[str, int]:
    sizes = {}
    for part, (split, indices) in enumerate(splits.items()):
        halves = _halve(indices, labels, (len(indices) + 1) // 2, seed)
        for (domain, (paper, ink)), half in zip(DOMAINS.items(), halves, strict=True):
            rng = np.random.default_rng([seed, 2 + part, ord(domain)])
            name = ('test' if split == 'val' else split) + domain
            (root / name).mkdir(parents=True)
            for i in half:
                card = draw_card(rng, enlarge(images[i], CARD_SIZE), paper, ink)
                Image.fromarray(card).save(root / name / f'{i:04d}_label{labels[i]}.png')
            sizes[name] = len(half)
    return sizes
