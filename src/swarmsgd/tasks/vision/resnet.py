"""ResNet-20 for 32x32 images: He et al. 2016 (arXiv 1512.03385), section 4.2, with n = 3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def resnet20(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A 3x3 convolution, three stages of three blocks (16, 32, 64 channels), mean, linear.

    Shortcuts without parameters (option A). 269,722 parameters for 3 channels and 10 classes.
    """
    return nn.Sequential(
        *_conv_bn(shape[0], 16, stride=1),
        nn.ReLU(),
        *(_Block(16, 16, stride=1) for _ in range(3)),
        _Block(16, 32, stride=2),
        *(_Block(32, 32, stride=1) for _ in range(2)),
        _Block(32, 64, stride=2),
        *(_Block(64, 64, stride=1) for _ in range(2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )


def _conv_bn(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and the identity added to them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_bn(channels_in, channels, stride),
            nn.ReLU(),
            *_conv_bn(channels, channels, stride=1),
        )
        self.stride = stride
        self.new_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Option A: every stride-th pixel, and zeros for the channels that are new."""
        if self.stride == 1:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
