"""Small networks in plain torch."""

import torch
from torch import nn

X = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(0))


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
    )


class Residual(nn.Module):
    """Has a pair, a depthwise pair, a projection, a final norm and a predictor."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.downsample = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(8)
        self.predictor = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return self.predictor(self.norm(self.act(y + self.downsample(x))))


def classes(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if m._parameters and not m._modules]


def step(model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    """Forward and backward with a random cotangent; every gradient must be finite."""
    out = model(x)
    out.backward(torch.randn(out.shape, generator=torch.manual_seed(0), dtype=out.dtype))
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    return out
