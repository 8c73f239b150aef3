"""The Tiny ImageNet converter on a small archive of the same layout, as zip file and folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nc_plugins.datasets import tiny_imagenet as module
from nc_plugins.datasets.tiny_imagenet import convert_tiny_imagenet

REPO = Path(__file__).resolve().parents[2]
WNIDS = ['n02124075', 'n01443537', 'n04067472']  # not sorted, as in the original
TRAIN, VAL = 4, 2


@pytest.fixture
def folder(tmp_path):
    """An extracted archive, including test images and box files."""
    root = tmp_path / 'in' / 'tiny-imagenet-200'
    (root / 'val' / 'images').mkdir(parents=True)
    (root / 'test' / 'images').mkdir(parents=True)
    (root / 'wnids.txt').write_text('\n'.join(WNIDS) + '\n')
    (root / 'words.txt').write_text(''.join(f'{w}\tname of {w}\n' for w in WNIDS))
    (root / 'test' / 'images' / 'test_0.JPEG').write_bytes(b'test')
    for wnid in WNIDS:
        (root / 'train' / wnid / 'images').mkdir(parents=True)
        (root / 'train' / wnid / f'{wnid}_boxes.txt').write_text('boxes')
        for i in range(TRAIN):
            image = root / 'train' / wnid / 'images' / f'{wnid}_{i}.JPEG'
            image.write_bytes(f'{wnid} {i} '.encode() * 50)
    lines = []
    for i in range(VAL * len(WNIDS)):
        wnid = WNIDS[i % len(WNIDS)]
        (root / 'val' / 'images' / f'val_{i}.JPEG').write_bytes(f'val {i} {wnid}'.encode())
        lines.append(f'val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n')
    (root / 'val' / 'val_annotations.txt').write_text(''.join(lines))
    return root


def zipped(folder, compression=zipfile.ZIP_DEFLATED):
    path = folder.parent / 'tiny-imagenet-200.zip'
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for file in sorted(folder.rglob('*')):
            archive.write(file, file.relative_to(folder.parent))
    return path


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def expected():
    files = {
        f'train/{wnid}/{wnid}_{i}.JPEG': f'{wnid} {i} '.encode() * 50
        for wnid in WNIDS
        for i in range(TRAIN)
    }
    for i in range(VAL * len(WNIDS)):
        wnid = WNIDS[i % len(WNIDS)]
        files[f'val/{wnid}/val_{i}.JPEG'] = f'val {i} {wnid}'.encode()
    return files


@pytest.mark.parametrize('kind', ['folder', 'parent', 'zip', 'flat zip'])
def test_every_image_is_in_the_folder_of_its_class(folder, tmp_path, kind):
    source = {'folder': folder, 'parent': folder.parent}.get(kind)
    if kind == 'zip':
        source = zipped(folder)
    if kind == 'flat zip':  # without the folder tiny-imagenet-200
        source = Path(shutil.make_archive(str(tmp_path / 'in' / 'flat'), 'zip', folder))
    dest = tmp_path / 'out'
    counts = convert_tiny_imagenet(source, dest)
    assert counts == {'classes': 3, 'train': 12, 'val': 6}
    written = contents(dest)
    del written['manifest.json']
    assert written == expected()


def test_folder_images_are_linked_or_copied(folder, tmp_path, monkeypatch):
    name = f'{WNIDS[0]}_0.JPEG'
    origin = folder / 'train' / WNIDS[0] / 'images' / name
    convert_tiny_imagenet(folder, tmp_path / 'linked')
    assert (tmp_path / 'linked' / 'train' / WNIDS[0] / name).samefile(origin)

    def no_links(*args):
        raise OSError(18, 'Invalid cross-device link')

    monkeypatch.setattr(os, 'link', no_links)
    convert_tiny_imagenet(folder, tmp_path / 'copied')
    copy = tmp_path / 'copied' / 'train' / WNIDS[0] / name
    assert copy.read_bytes() == origin.read_bytes() and not copy.samefile(origin)


def test_a_complete_set_is_not_written_again_unless_forced(folder, tmp_path):
    dest = tmp_path / 'out'
    convert_tiny_imagenet(folder, dest)
    (folder / 'train' / WNIDS[0] / 'images' / f'{WNIDS[0]}_3.JPEG').unlink()
    assert convert_tiny_imagenet(folder, dest) is None
    assert convert_tiny_imagenet(folder, dest, force=True)['train'] == 11
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in', 'out']


def drop_wnids(root):
    (root / 'wnids.txt').unlink()


def drop_annotations(root):
    (root / 'val' / 'val_annotations.txt').unlink()


def drop_train_class(root):
    shutil.rmtree(root / 'train' / WNIDS[1])


def empty_two_train_classes(root):
    for wnid in WNIDS[:2]:
        shutil.rmtree(root / 'train' / wnid / 'images')


def drop_val_class(root):
    path = root / 'val' / 'val_annotations.txt'
    path.write_text(path.read_text().replace(WNIDS[2], WNIDS[0]))


def drop_val_image(root):
    (root / 'val' / 'images' / 'val_3.JPEG').unlink()


def add_val_image(root):
    (root / 'val' / 'images' / 'val_99.JPEG').write_bytes(b'')


def add_train_class(root):
    shutil.copytree(root / 'train' / WNIDS[0], root / 'train' / 'n99999999')


def break_annotation(root):
    path = root / 'val' / 'val_annotations.txt'
    path.write_text(path.read_text().replace('val_1.JPEG\tn01443537', 'val_1.JPEG\tgoldfish'))


def climb_out(root):
    with open(root / 'wnids.txt', 'a') as file:
        file.write('../../n01443537\n')


def list_twice(root):
    with open(root / 'wnids.txt', 'a') as file:
        file.write(WNIDS[0])


@pytest.mark.parametrize('as_zip', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize(
    'damage, message',
    [
        (drop_wnids, 'is not Tiny ImageNet: it has no wnids.txt'),
        (drop_annotations, 'is not Tiny ImageNet: it has no val/val_annotations.txt'),
        (drop_train_class, 'no train images of class n01443537$'),
        (empty_two_train_classes, 'no train images of class n01443537 and 1 more'),
        (drop_val_class, 'no val images of class n04067472'),
        (drop_val_image, r'val/images/val_3\.JPEG is missing'),
        (add_val_image, r'val/images/val_99\.JPEG has no line in val/val_annotations\.txt'),
        (add_train_class, 'has train/n99999999, which wnids.txt does not list'),
        (
            break_annotation,
            "the line 'val_1.JPEG goldfish 0 32 44 62', expected an image and a class",
        ),
        (climb_out, r"lists '\.\./\.\./n01443537', expected an id such as n01443537"),
        (list_twice, 'wnids.txt in .* is empty or lists a class twice'),
    ],
)
def test_damaged_sets_are_an_error(folder, tmp_path, damage, message, as_zip):
    damage(folder)
    source = zipped(folder) if as_zip else folder
    with pytest.raises(ValueError, match=message):
        convert_tiny_imagenet(source, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_a_source_that_is_not_an_archive(folder, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'nowhere\.zip does not exist; expected tiny-image'
    ):
        convert_tiny_imagenet(tmp_path / 'nowhere.zip', tmp_path / 'out')
    whole = zipped(folder).read_bytes()
    for name, part in (('half.zip', whole[: len(whole) // 2]), ('page.zip', b'<html>404</html>')):
        (folder.parent / name).write_bytes(part)
        with pytest.raises(ValueError, match=f'{name} is not a complete zip file'):
            convert_tiny_imagenet(folder.parent / name, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_error_for_a_flipped_byte_names_the_image(folder, tmp_path, compression):
    path = zipped(folder, compression)
    with zipfile.ZipFile(path) as archive:
        name = f'tiny-imagenet-200/train/{WNIDS[0]}/images/{WNIDS[0]}_1.JPEG'
        start = archive.getinfo(name).header_offset + 30 + len(name)
    data = bytearray(path.read_bytes())
    data[start + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf'damaged at .*{WNIDS[0]}_1\.JPEG .*download it again'):
        convert_tiny_imagenet(path, tmp_path / 'out')
    assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('kind', [OSError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(folder, tmp_path, monkeypatch, kind):
    put, done = module._Folder.put, []

    def fail(self, name, target):
        if len(done) == 5:
            raise kind('disk full')
        put(self, name, target)
        done.append(target)
        assert target.is_file()

    monkeypatch.setattr(module._Folder, 'put', fail)
    with pytest.raises(kind, match='disk full'):
        convert_tiny_imagenet(folder, tmp_path / 'new' / 'out')
    assert len(done) == 5
    assert [p.name for p in tmp_path.iterdir()] == ['in']


def run(*args):
    known = [str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])]
    return subprocess.run(
        [sys.executable, str(REPO / 'tools' / 'convert_tiny_imagenet.py'), *map(str, args)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(known)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_tool_converts(folder, tmp_path):
    first = run(zipped(folder), tmp_path / 'out')
    assert first.returncode == 0
    assert '3 classes, 12 train, 6 val' in first.stdout
    assert 'the official set has 200 classes, 100,000 train, 10,000 val' in first.stderr
    assert len(list((tmp_path / 'out').glob('*/*/*.JPEG'))) == 18


def test_an_error_of_the_tool_is_one_sentence(folder, tmp_path):
    drop_val_image(folder)
    result = run(folder, tmp_path / 'out')
    assert result.returncode == 1
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
    assert 'val_3.JPEG is missing' in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['in']
