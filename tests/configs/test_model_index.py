"""model-index.yml and the metafile.yml and README.md of each folder of configs."""

import csv
from pathlib import Path

import modelindex
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ('classification', 'cyclegan', 'deeplab', 'mask_rcnn')
# metric of a metafile: column of results.csv, and its factor
COLUMNS = {
    'Top 1 Accuracy': ('accuracy/top1', 1),
    'box AP': ('coco/bbox_mAP', 100),
    'mask AP': ('coco/segm_mAP', 100),
    'mIoU': ('mIoU', 1),
    'Cycle L1': ('cycle/l1', 1),
}


@pytest.fixture(scope='module')
def index():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        index = modelindex.load('model-index.yml')
        index.build_models_with_collections()
    return index


@pytest.fixture(scope='module')
def measured() -> dict[str, list[dict[str, str]]]:
    """The finished runs of docs/results by config, those of the newest comparison."""
    newest: dict[str, list[dict[str, str]]] = {}
    for file in ROOT.glob('docs/results/*/results.csv'):
        runs: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(file.open()):
            runs.setdefault(row['config'], []).append(row)
        for config, rows in runs.items():
            newest[config] = max(
                newest.get(config, rows), rows, key=lambda some: some[0]['utc_end']
            )
    return newest


def test_every_config_is_listed_once(index):
    listed = [model.config for model in index.models]
    assert {*FOLDERS} == {path.parent.name for path in ROOT.glob('configs/[!_]*/*.py')}
    assert sorted(listed) == sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in ROOT.glob(f'configs/{folder}/*.py')
    )
    assert all(model.name == Path(model.config).stem for model in index.models)


def test_results_are_those_of_docs_results(index, measured):
    with_results = {model.config for model in index.models if model.results}
    assert with_results == measured.keys()
    for model in index.models:
        for result in model.results or ():
            runs = measured[model.config]
            assert model.metadata.data['Seeds'] == len(runs)
            assert {run['utc_end'][:10] for run in runs} == {
                str(model.metadata.data['Results Date'])
            }
            readme = (ROOT / model.config).with_name('README.md').read_text()
            for name, value in result.metrics.items():
                column, factor = COLUMNS[name]
                mean = factor * sum(float(run[column]) for run in runs) / len(runs)
                decimals = len(str(value).partition('.')[2])
                assert value == round(mean, decimals), (model.name, name)
                assert str(value) in readme, (model.name, name)


def test_collections(index):
    names = {collection.name for collection in index.collections}
    assert {model.in_collection for model in index.models} == names
    for collection in index.collections:
        assert collection.paper['URL'].startswith('https://arxiv.org/abs/')
        assert (ROOT / collection.readme).is_file()


def test_no_weights_are_published(index):
    assert not any(model.weights for model in index.models)
