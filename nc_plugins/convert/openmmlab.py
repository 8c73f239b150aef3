"""convert() in configs of OpenMMLab: the model type NCModel, and the edit that puts it in."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from ..layers.registry import register
from .api import convert

_IMPORT = 'nc_plugins'


def nc_model(
    model: dict,
    to: str = 'NC',
    keep: Sequence[str] = (),
    depthwise: str = 'keep',
    data_preprocessor: dict | None = None,
) -> nn.Module:
    """Build ``model`` and convert it: ``dict(type='NCModel', model=dict(...), to='NC')``.

    Returns the model itself, so the names of its state dict stay. The arguments are those of
    :func:`nc_plugins.convert`; ``data_preprocessor`` is added by mmengine's Runner.
    """
    model = {**model}
    if data_preprocessor is not None:
        model.setdefault('data_preprocessor', data_preprocessor)
    built, report = convert(MODELS.build(model), to, keep=keep, depthwise=depthwise)
    print_log(report.summary(), logger='current')
    for row in report.left:
        print_log(f'{row.path} ({row.what}) stays: {row.reason}', logger='current', level=10)
    return built


def convert_config(cfg: Config, to: str, **options) -> None:
    """Change ``cfg`` so that it builds its model and converts it to ``to``.

    Args:
        options: ``keep`` and ``depthwise`` of :func:`nc_plugins.convert`.
    """
    cfg.model = dict(type='NCModel', model=cfg.model, to=to, **options)
    imports = dict(cfg.get('custom_imports') or {'imports': [], 'allow_failed_imports': False})
    names = imports['imports']
    names = [names] if isinstance(names, str) else list(names)
    cfg.custom_imports = {**imports, 'imports': [*names, *({_IMPORT} - {*names})]}


register(MODELS, 'NCModel', nc_model)
