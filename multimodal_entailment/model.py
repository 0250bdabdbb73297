"""The network: a text encoder over the pair of texts, one vision encoder for both images, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from multimodal_entailment.fusion import Fusion
from multimodal_entailment.info import LABELS, Shape
from paddle_ranker.encoding.tokenizers.base import Spelling
from paddle_ranker.lexical.comparison import Speller
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoder import Encoder
from paddle_ranker.model.match import LEVELS, levels_of_pair

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder


class TextEncoder(nn.Layer):
    """Encoder of `[CLS] text one [SEP] text two [SEP]`, with match embeddings of tokens that are in both texts.

    Args:
        config: the encoder's configuration.
        never_match: ids of special tokens, padding and [UNK]; None: no match embeddings.
        encoder: a pretrained encoder of that configuration; None: a new one with random parameters.
        spelling: the tokens' spelling, by which match levels compare them; None: they compare ids.
    """

    def __init__(
        self,
        config: EncoderConfig,
        never_match: Optional[Sequence[int]],
        encoder: Optional[Encoder] = None,
        spelling: Optional[Spelling] = None,
    ):
        super().__init__()
        self.config, self.never_match = config, never_match
        self.encoder = Encoder(config) if encoder is None else encoder
        self.speller = None if spelling is None or never_match is None else Speller(config.vocab_size, spelling)
        if never_match is not None:
            self.match_embeddings = nn.Embedding(
                LEVELS, config.hidden_size, weight_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
            )

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, need_tokens: bool) -> tuple[Tensor, Optional[Tensor]]:
        """Return the pooled output `[batch, hidden]`, and the tokens' states `[batch, length, hidden]` if needed."""
        extra = None
        if self.never_match is not None:
            extra = self.match_embeddings(levels_of_pair(self.speller, input_ids, token_type_ids, self.never_match))
        if not need_tokens:  # the last layer is then cheaper
            return self.encoder.pooled(input_ids, token_type_ids, extra), None
        states = self.encoder(input_ids, token_type_ids, extra)
        return self.encoder.pool(states, input_ids), states


class EntailmentNetwork(nn.Layer):
    """Network from the inputs of pairs of posts to a logit for each class.

    Args:
        text: the text encoder; None: the network takes no texts.
        vision: the vision encoder; None: the network takes no images.
        shape: the options of the network above the encoders.
        frozen_text, frozen_vision: keep the encoder's parameters, and run it in evaluation mode.
    """

    def __init__(
        self,
        text: Optional[TextEncoder],
        vision: Optional[VisionEncoder],
        shape: Shape,
        *,
        frozen_text: bool = False,
        frozen_vision: bool = False,
    ):
        super().__init__()
        if text is None and vision is None:
            raise ValueError("a network needs texts, images or both")
        self.text, self.vision, self.shape = text, vision, shape
        self.frozen = [
            part for part, is_frozen in ((text, frozen_text), (vision, frozen_vision)) if is_frozen and part is not None
        ]
        for part in self.frozen:
            for parameter in part.parameters():
                parameter.stop_gradient = True
        self.fusion = Fusion(
            None if text is None else text.config.hidden_size,
            None if vision is None else vision.width,
            len(LABELS),
            attention=shape.fusion,
            joint=shape.joint,
            compare_images=shape.compare_images,
            dropout=shape.dropout,
            modality_dropout=shape.modality_dropout,
        )

    def train(self) -> None:
        """Switch to training mode; frozen encoders stay in evaluation mode."""
        super().train()
        for part in self.frozen:
            part.eval()

    def regions(self, pixels: Tensor) -> Tensor:
        """Return the features of images' regions, `[n, regions, width]`, of `[n, 3, size, size]` uint8 pixels."""
        assert self.vision is not None
        regions: Tensor = self.vision(self.vision.normalise(pixels))
        return regions

    def forward(
        self,
        input_ids: Optional[Tensor],
        token_type_ids: Optional[Tensor],
        images: Optional[tuple[Tensor, Tensor]],
        present: Optional[Tensor],
    ) -> Tensor:
        """Return the logits, `[batch, classes]` float32, in the order of `LABELS`.

        Args:
            input_ids, token_type_ids: `[batch, length]` int64; None for a network without texts.
            images: `regions` of image one and of image two, `[batch, regions, width]` each; None without images.
            present: `[batch, 2]` float32, 1 where there is an image; where it is 0, the features are ignored.
        """
        text = tokens = padding = None
        if self.text is not None:
            assert input_ids is not None
            text, tokens = self.text(input_ids, token_type_ids, self.fusion.attends)
            padding = input_ids == self.text.config.pad_token_id
        return self.fusion(text, tokens, padding, images, present)


class _FromPixels(nn.Layer):
    """Network from pixels to probabilities and logits: the exported network, which also runs a trained model."""

    def __init__(self, network: EntailmentNetwork):
        super().__init__()
        self.network = network

    @property
    def configs(self) -> tuple[EncoderConfig, ...]:
        """Return the text encoder's configuration in a tuple; empty if there is none."""
        return () if self.network.text is None else (self.network.text.config,)

    def _outputs(
        self, ids: Optional[Tensor], types: Optional[Tensor], images: Optional[tuple[Tensor, Tensor]],
        present: Optional[Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        regions = None if images is None else (self.network.regions(images[0]), self.network.regions(images[1]))
        logits = self.network(ids, types, regions, present)
        return F.softmax(logits, axis=-1), logits


class _OfBoth(_FromPixels):
    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, image_1: Tensor, image_2: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._outputs(input_ids, token_type_ids, (image_1, image_2), present)


class _OfTexts(_FromPixels):
    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._outputs(input_ids, token_type_ids, None, None)


class _OfImages(_FromPixels):
    def forward(self, image_1: Tensor, image_2: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return self._outputs(None, None, (image_1, image_2), present)


def pixels_to_probabilities(network: EntailmentNetwork) -> nn.Layer:
    """Return a layer that takes the model's inputs and returns probabilities and logits (`kind.EntailmentKind`)."""
    if network.vision is None:
        return _OfTexts(network)
    return _OfImages(network) if network.text is None else _OfBoth(network)
