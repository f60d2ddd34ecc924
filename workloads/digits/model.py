"""The network: torchvision's ResNet with one block a stage, its first layer fit for 8×8 images."""

from __future__ import annotations

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
