"""Detection, segmentation and translation through tools/train.py and tools/test.py.

Whole runs in new processes, with the digits configs on a small set of images. Mistakes in the data
in this process.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmcv._ext')
import numpy as np
import train
from PIL import Image

from nc_plugins.datasets.digits import write_digits

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'


def write(root):
    """Write data/digits into ``root``: 6 scenes to train, 2 to test, 4 images in each domain."""
    write_digits(root / 'data/digits', scenes_train=6, scenes_val=2, seed=0)
    for domain in (root / 'data/digits/unpaired').iterdir():
        for path in sorted(domain.iterdir())[4:]:
            path.unlink()


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('tasks')
    write(root)
    return root


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    """The same data in the current folder, for a test to damage."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data/digits'


def run(name, *args, folder):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, args)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


TASKS = {
    'detection': (
        'mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits.py',
        ['train_cfg.max_epochs=1'],
        ('coco/bbox_mAP', 'coco/segm_mAP_50'),
        '*.png',
    ),
    'segmentation': (
        'deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py',
        ['train_cfg.max_iters=3', 'train_cfg.val_interval=3'],
        ('mIoU',),
        '*.png',
    ),
    'translation': (
        'cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e_digits.py',
        ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2'],
        ('cycle/l1', 'digits/read'),
        'AB/*.png',
    ),
}


@pytest.mark.parametrize('task', TASKS)
def test_a_task_trains_tests_and_draws(task, digits, tmp_path):
    config, options, metrics, pictures = TASKS[task]
    work_dir = tmp_path / 'run'
    options = ['--work-dir', work_dir, '--cfg-options', *options]
    done = run('train', CONFIGS / config, *options, folder=digits)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((work_dir / 'record.json').read_text())
    assert record['finished'] is True and record['max_iters'] == 3 - (task == 'translation')
    assert record['census']['NCAffine'] >= record['census']['NC'] > 5
    assert set(metrics) <= set(record['metrics'])
    assert list(work_dir.rglob('events.out.tfevents*'))

    (checkpoint,) = work_dir.glob('epoch_1.pth' if task != 'segmentation' else 'iter_3.pth')
    shown = tmp_path / 'shown'
    arguments = [CONFIGS / config, checkpoint, '--work-dir', tmp_path / 'test', '--show-dir', shown]
    done = run('test', *arguments, folder=digits)
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = sorted(shown.glob(pictures))
    assert len(drawn) == (4 if task == 'translation' else 2)
    for path in drawn:
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 5, f'{path} shows nothing'


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def forget_masks(path):
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        del annotation['segmentation']
    path.write_text(json.dumps(content))


def shrink(path):
    with Image.open(path) as image:
        image.resize((64, 64), Image.Resampling.NEAREST).save(path)


def each(pattern, damage):
    def spoil(root):
        paths = sorted(root.glob(pattern))
        assert paths
        for path in paths:
            damage(path)

    return spoil


MISTAKES = {
    'truncated JPEG': (
        'segmentation',
        each('voc/JPEGImages/*.jpg', truncate),
        r'image \S*voc/JPEGImages/train_\S+\.jpg cannot be read \(.*truncated',
    ),
    'empty JPEG': (
        'segmentation',
        each('voc/JPEGImages/*.jpg', lambda path: path.write_bytes(b'')),
        r'image \S*voc/JPEGImages/train_\S+\.jpg cannot be read \(empty, or not an image',
    ),
    'mask of another size': (
        'segmentation',
        each('voc/SegmentationClass/*.png', shrink),
        r'label map \S*SegmentationClass/(\S+)\.png has 64x64 pixels, but its image \S*/\1\.jpg '
        'has 128x128',
    ),
    'corrupt mask': (
        'segmentation',
        each('voc/SegmentationClass/*.png', truncate),
        r'label map \S*SegmentationClass/\S+\.png cannot be read',
    ),
    'COCO file without masks': (
        'detection',
        each('coco/annotations/instances_train.json', forget_masks),
        r"instances_train\.json has no 'segmentation' in .*the pipeline loads masks.*with_mask=F",
    ),
    'empty PNG': (
        'detection',
        each('coco/train/*.png', lambda path: path.write_bytes(b'')),
        r'image \S*coco/train/\S+\.png cannot be read \(empty, or not an image',
    ),
    'empty domain': (
        'translation',
        each('unpaired/trainB/*.png', Path.unlink),
        r'unpaired/trainB holds no images',
    ),
    'corrupt image of a domain': (
        'translation',
        each('unpaired/trainA/*.png', truncate),
        r'unpaired/trainA/\S+\.png cannot be read',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('mistake', MISTAKES)
def test_unusable_data_is_one_sentence_that_names_the_file(mistake, spoilt, tmp_path, capsys):
    task, spoil, wanted = MISTAKES[mistake]
    spoil(spoilt)
    work_dir = tmp_path / 'run'
    assert train.main([str(CONFIGS / TASKS[task][0]), '--work-dir', str(work_dir)]) == 1
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
    assert len(errors) == 1
    assert re.search(wanted, errors[0])
    # The log stays. Nothing looks like a training that can be resumed or compared.
    assert not [p for p in work_dir.rglob('*') if p.suffix == '.pth' or p.name == 'record.json']


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
def test_a_file_that_breaks_a_running_training_is_named_too(workers, spoilt, tmp_path, capsys):
    """After many iterations, also from a worker process. The checkpoints stay."""
    bad = spoilt / 'voc/JPEGImages/train_00003.jpg'
    truncate(bad)
    names = ['train_00001'] * 8 + [bad.stem]
    (spoilt / 'voc/ImageSets/Segmentation/train.txt').write_text('\n'.join(names))
    options = [
        'train_dataloader.batch_size=1',
        f'train_dataloader.num_workers={workers}',
        'train_dataloader.persistent_workers=False',
        'train_dataloader.sampler.shuffle=False',
        'default_hooks.checkpoint.interval=4',
    ]
    work_dir = tmp_path / 'run'
    config = str(CONFIGS / TASKS['segmentation'][0])
    assert train.main([config, '--work-dir', str(work_dir), '--cfg-options', *options]) == 1
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith('error: ')]
    assert len(errors) == 1
    assert re.fullmatch(rf'error: image \S*{bad.name} cannot be read \(.*truncated.*\)', errors[0])
    assert (work_dir / 'iter_8.pth').is_file()


def test_an_unreadable_image_is_passed_over_if_the_config_says_so(spoilt, tmp_path, capfd):
    truncate(spoilt / 'voc/JPEGImages/train_00003.jpg')
    options = [
        'train_dataloader.dataset.pipeline.0.ignore_empty=True',
        'train_cfg.max_iters=6',
        'train_cfg.val_interval=6',
    ]
    config = str(CONFIGS / TASKS['segmentation'][0])
    arguments = [config, '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options]
    assert train.main(arguments) == 0
    assert json.loads((tmp_path / 'run/record.json').read_text())['finished'] is True
    said = ''.join(capfd.readouterr())
    assert said.count('train_00003.jpg cannot be read') == 1
