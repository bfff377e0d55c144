"""How the slide models' weights begin."""

from __future__ import annotations

from torch import nn


def xavier(network: nn.Module) -> None:
    """Draw weights of linear and convolution layers from Xavier's normal distribution; biases are 0.

    As the code of DSMIL and CLAM does. Draws from torch's global generator: seed it before.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
