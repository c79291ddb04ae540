"""A narrower network out of a trained one: the strongest channels stay (structured pruning)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from .config import Network
from .model import Block, Context, Detector

#: A convolution, its batch normalisation (None for the last of a head), and the groups of channels it reads and writes.
Link = tuple[nn.Conv2d, nn.BatchNorm2d | None, str, str]


def links(net: Detector) -> Iterator[Link]:
    """Every convolution of the network. Channels that are added to each other are one group, and stay or go together."""

    def unit(sequence: nn.Sequential, reads: str, writes: str) -> Link:
        norm = sequence[1] if len(sequence) > 1 and isinstance(sequence[1], nn.BatchNorm2d) else None
        return sequence[0], norm, reads, writes

    def stage(sequence: nn.Sequential, level: int) -> Iterator[Link]:
        name = f"width{level}"
        yield unit(sequence[0], f"width{level - 1}", name)
        for n, block in enumerate(sequence[1:]):
            inner = f"{name}.{n}"
            if isinstance(block, Block):
                yield unit(block.narrow, name, inner)
                yield unit(block.widen, inner, name)

    yield unit(net.stem[0], "picture", "width0")
    yield from stage(net.stem[1], 1)
    yield from stage(net.stage3, 2)
    yield from stage(net.stage4, 3)
    stage5, context = net.stage5
    assert isinstance(context, Context)
    yield from stage(stage5, 4)
    yield unit(context.narrow, "width4", "context")
    yield unit(context.join, "context", "width4.out")
    for lateral, width in ((net.lateral3, "width2"), (net.lateral4, "width3"), (net.lateral5, "width4.out")):
        yield unit(lateral, width, "pyramid")
    for name in ("top4", "top3", "down3", "down4", "out4", "out5"):
        yield unit(getattr(net, name), "pyramid", "pyramid")
    for name, heads in (("class", net.class_heads), ("box", net.box_heads)):
        for level, head in enumerate(heads):
            yield unit(head[0], "pyramid", f"{name}{level}")
            yield head[1], None, f"{name}{level}", f"{name}{level}.out"


@torch.no_grad()
def strengths(net: Detector) -> dict[str, torch.Tensor]:
    """How much each channel of each group counts: what the normalisations that write it let through (network slimming,
    Liu et al. 2017), times what the convolutions that read it make of it."""
    written: dict[str, torch.Tensor] = {}
    read: dict[str, torch.Tensor] = {}
    for convolution, norm, reads, writes in links(net):
        scale = norm.weight.abs() if norm else torch.ones(convolution.out_channels)
        written[writes] = written.get(writes, 0) + scale
        norms = convolution.weight.square().sum((0, 2, 3)).sqrt()
        if reads in written and len(norms) > len(written[reads]):
            # The context reads its channels several times, pooled more and more.
            norms = norms.view(-1, len(written[reads])).sum(0)
        read[reads] = read.get(reads, 0) + norms
    return {name: scale * read.get(name, 1.0) for name, scale in written.items()}


@torch.no_grad()
def slimmed(wide: Detector, network: Network) -> Detector:
    """A network of the given width, made of the strongest channels of a wider one of the same depth. Raises a
    ValueError where it would have to be wider."""
    net = Detector(wide.classes, network)
    pairs = list(zip(links(wide), links(net), strict=True))
    strongest = strengths(wide)
    kept: dict[str, torch.Tensor] = {"picture": torch.arange(3)}
    for (large, _, _, _), (small, _, _, writes) in pairs:
        if small.out_channels > large.out_channels:
            raise ValueError(f"the network to start from has {large.out_channels} channels at {writes}, not more")
        kept[writes] = strongest[writes].topk(small.out_channels).indices.sort().values
    for (large, large_norm, _, _), (small, small_norm, reads, writes) in pairs:
        out, inputs = kept[writes], kept[reads]
        times = small.in_channels // len(inputs)
        inputs = torch.cat([inputs + n * (large.in_channels // times) for n in range(times)])
        small.weight.copy_(large.weight[out][:, inputs])
        if small.bias is not None:
            small.bias.copy_(large.bias[out])
        if small_norm is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(small_norm, name).copy_(getattr(large_norm, name)[out])
    return net
