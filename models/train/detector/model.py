"""The network: plain convolutions and ReLU, so that it quantises well and runs fast everywhere.

A backbone of residual blocks (strides 8, 16, 32), an additive path-aggregation pyramid (Liu et al. 2018) and light
decoupled heads without anchors: at each cell four distances to the sides of the box (FCOS, Tian et al. 2019), as
exponents in strides, and one logit for each class.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .config import Network
from .evaluate import Runner

STRIDES = (8, 16, 32)
#: Distances are cut at exp(5) strides, so that a wild weight never overflows.
MAX_EXPONENT = 5.0


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """Residual block: 1 × 1 to half the channels, 3 × 3 back."""

    def __init__(self, channels: int):
        super().__init__()
        self.narrow = conv(channels, channels // 2, 1)
        self.widen = nn.Sequential(nn.Conv2d(channels // 2, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.widen(self.narrow(x)), inplace=True)


class Context(nn.Module):
    """Spatial pyramid pooling in series (SPPF): what lies around, up to 13 cells across."""

    def __init__(self, channels: int):
        super().__init__()
        self.narrow = conv(channels, channels // 2, 1)
        self.join = conv(channels * 2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = [self.narrow(x)]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        return self.join(torch.cat(pooled, 1))


class Detector(nn.Module):
    """`forward` takes float [n, 3, h, w] (RGB, 0..1; h and w multiples of 32) and gives for each stride
    (exponents [n, 4, h/s, w/s], logits [n, classes, h/s, w/s])."""

    def __init__(self, classes: int, network: Network):
        super().__init__()
        widths, pyramid = network.widths, network.pyramid
        self.classes = classes

        def stage(level: int) -> nn.Sequential:
            blocks = [Block(widths[level]) for _ in range(network.depths[level - 1])]
            return nn.Sequential(conv(widths[level - 1], widths[level], 3, 2), *blocks)

        self.stem = nn.Sequential(conv(3, widths[0], 3, 2), stage(1))
        self.stage3, self.stage4 = stage(2), stage(3)
        self.stage5 = nn.Sequential(stage(4), Context(widths[4]))
        self.lateral3, self.lateral4, self.lateral5 = (conv(width, pyramid, 1) for width in widths[2:])
        self.top4, self.top3 = conv(pyramid, pyramid), conv(pyramid, pyramid)
        self.down3, self.down4 = conv(pyramid, pyramid, 3, 2), conv(pyramid, pyramid, 3, 2)
        self.out4, self.out5 = conv(pyramid, pyramid), conv(pyramid, pyramid)

        def heads(outputs: int) -> nn.ModuleList:
            inner = network.heads
            return nn.ModuleList(nn.Sequential(conv(pyramid, inner), nn.Conv2d(inner, outputs, 1)) for _ in STRIDES)

        self.class_heads, self.box_heads = heads(classes), heads(4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # A prior score of 0.01 (RetinaNet, Lin et al. 2017) and boxes of about three strides keep the first steps calm.
        for head, bias in ((self.class_heads, -4.6), (self.box_heads, 0.5)):
            for level in head:
                nn.init.normal_(level[-1].weight, std=0.01)
                nn.init.constant_(level[-1].bias, bias)

    def forward(self, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        c3 = self.stage3(self.stem(x))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        p5 = self.lateral5(c5)
        p4 = self.top4(self.lateral4(c4) + F.interpolate(p5, scale_factor=2, mode="nearest"))
        p3 = self.top3(self.lateral3(c3) + F.interpolate(p4, scale_factor=2, mode="nearest"))
        p4 = self.out4(p4 + self.down3(p3))
        p5 = self.out5(p5 + self.down4(p4))
        return [(box(p), logits(p)) for box, logits, p in zip(self.box_heads, self.class_heads, (p3, p4, p5))]


def cells(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres [n, 2] (x, y in pixels) and strides [n] of all cells, in the order of the outputs."""
    centres, strides = [], []
    for stride in STRIDES:
        x, y = torch.arange(width // stride), torch.arange(height // stride)
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
        centres.append((grid + 0.5) * stride)
        strides.append(torch.full((len(grid),), float(stride)))
    return torch.cat(centres), torch.cat(strides)


def flatten(outputs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponents [n, cells, 4] and logits [n, cells, classes], in float32."""
    exponents, logits = (torch.cat([level[k].float().flatten(2) for level in outputs], 2) for k in (0, 1))
    return exponents.transpose(1, 2), logits.transpose(1, 2)


def corners(exponents: torch.Tensor, centres: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Boxes [n, cells, 4] as x1, y1, x2, y2 in pixels of the input."""
    distances = exponents.clamp(max=MAX_EXPONENT).exp() * strides[:, None]
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)


class Decoded(nn.Module):
    """The network and its decode for one fixed size: `output0` [n, 4 + classes, cells] with centre, width and height
    in pixels of the input and scores 0..1. Suppression stays outside."""

    def __init__(self, detector: Detector, size: int):
        super().__init__()
        self.detector = detector
        centres, strides = cells(size, size)
        self.register_buffer("centres", centres.T[None].contiguous())
        self.register_buffer("strides", strides[None, None])
        self.counts = [(size // stride) ** 2 for stride in STRIDES]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.detector(images)
        # Reshapes with known counts keep only the batch size dynamic in the exported graph.
        exponents = torch.cat([box.reshape(-1, 4, n) for (box, _), n in zip(outputs, self.counts)], 2)
        logits = torch.cat([c.reshape(-1, self.detector.classes, n) for (_, c), n in zip(outputs, self.counts)], 2)
        distances = exponents.clamp(max=MAX_EXPONENT).exp() * self.strides
        near, far = distances[:, :2], distances[:, 2:]
        return torch.cat([self.centres + (far - near) * 0.5, near + far, logits.sigmoid()], 1)


def runner(net: Detector, size: int) -> Runner:
    """The network as a function of numpy arrays, on the device where it is."""
    decoded = Decoded(net, size).eval().to(next(net.parameters()).device)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tensor = torch.from_numpy(images).to(decoded.centres.device, memory_format=torch.channels_last)
            return decoded(tensor).cpu().numpy()

    return run
