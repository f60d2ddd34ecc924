"""The network: torchvision's ResNet with one block a stage, its first layer fit for 8×8 images."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


def build(*, classes: int) -> nn.Module:
    """Return an untrained network: images [n, 1, 8, 8] to logits [n, classes].

    The stem of the original halves the image twice before the first block, which would leave
    nothing of eight pixels; here it keeps their size.
    """
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network


def augment(images_nchw: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Return the images, each moved by up to one pixel each way; the rim is repeated."""
    n, _, height, width = images_nchw.shape
    padded = nn.functional.pad(images_nchw, (1, 1, 1, 1), mode="replicate")
    offsets = torch.randint(0, 3, (n, 2), generator=generator)
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
