"""ResNet-18 and ConvNeXt in plain torch, their weights named as torchvision and timm name them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CONVNEXTS = {
    "convnext_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
}


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for stage in (1, 2, 3, 4):
            blocks = [
                BasicBlock(widths[stage - 1], widths[stage], 1 if stage == 1 else 2),
                BasicBlock(widths[stage], widths[stage], 1),
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))  # the features: fc is in the file, not in what we compare


class ChannelsFirstNorm(nn.LayerNorm):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width: int, as_convolutions: bool) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.as_convolutions = as_convolutions
        if as_convolutions:
            self.mlp.fc1 = nn.Conv2d(width, 4 * width, 1)
            self.mlp.fc2 = nn.Conv2d(4 * width, width, 1)
        else:
            self.mlp.fc1 = nn.Linear(width, 4 * width)
            self.mlp.fc2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        if self.as_convolutions:
            y = y.permute(0, 3, 1, 2)
        y = self.mlp.fc2(functional.gelu(self.mlp.fc1(y)))
        if not self.as_convolutions:
            y = y.permute(0, 3, 1, 2)
        return x + y * self.gamma[:, None, None]


class ConvNext(nn.Module):
    """timm writes the smaller ones' pointwise layers as 1x1 convolutions."""

    def __init__(self, name: str) -> None:
        super().__init__()
        depths, widths = CONVNEXTS[name]
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelsFirstNorm(widths[0]))
        self.stages = nn.ModuleList()
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = nn.Module()
            if index:
                before = widths[index - 1]
                stage.downsample = nn.Sequential(
                    ChannelsFirstNorm(before), nn.Conv2d(before, width, 2, 2)
                )
            stage.blocks = nn.Sequential(
                *(ConvNextBlock(width, name != "convnext_tiny") for _ in range(depth))
            )
            self.stages.append(stage)
        self.head = nn.Module()
        self.head.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head.fc = nn.Linear(widths[-1], 1000)

    def forward(self, x):
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage.blocks(stage.downsample(x) if index else x)
        return self.head.norm(x.mean((2, 3)))


def reference(name: str) -> nn.Module:
    """A network in inference mode, its weights and statistics random and far from their start."""
    torch.manual_seed(7)
    network = (ResNet18() if name == "resnet18" else ConvNext(name)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
            if isinstance(module, ConvNextBlock):
                module.gamma.uniform_(0.1, 1)
    return network


def features(network: nn.Module, images):
    """Features (n, channels) of uint8 images (n, h, w, 3), as the deck feeds them."""
    with torch.no_grad():
        x = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        return network(x).numpy()
