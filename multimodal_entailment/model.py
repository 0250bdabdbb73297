"""The network: a text encoder over the pair of texts, one vision encoder for both images, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Optional

import paddle
from paddle import Tensor, nn

from multimodal_entailment.data import LABELS
from multimodal_entailment.fusion import Fusion
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoder import Encoder
from paddle_ranker.model.match import LEVELS, match_levels

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder


@dataclass(frozen=True)
class Shape:
    """What makes a network beside its two encoders; stored in the model's folder."""

    fusion: str = "concat"
    joint: bool = True
    compare_images: bool = True
    match_embeddings: bool = True
    dropout: float = 0.1
    modality_dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-ready."""
        return asdict(self)


class TextEncoder(nn.Layer):
    """An encoder over `[CLS] text one [SEP] text two [SEP]`, told which tokens stand in both texts.

    Args:
        config: the encoder's shape.
        never_match: ids that carry no text; None leaves out the match embeddings.
    """

    def __init__(self, config: EncoderConfig, never_match: Optional[Sequence[int]]):
        super().__init__()
        self.config, self.never_match = config, never_match
        self.encoder = Encoder(config)
        if never_match is not None:
            self.match_embeddings = nn.Embedding(
                LEVELS, config.hidden_size, weight_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
            )

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, need_tokens: bool) -> tuple[Tensor, Optional[Tensor]]:
        """Return the pooled output `[batch, hidden]`, and where needed the tokens' states `[batch, length, hidden]`."""
        extra = None
        if self.never_match is not None:
            extra = self.match_embeddings(match_levels(input_ids, token_type_ids, self.never_match))
        if not need_tokens:  # the last layer is cheaper then
            return self.encoder.pooled(input_ids, token_type_ids, extra), None
        states = self.encoder(input_ids, token_type_ids, extra)
        return self.encoder.pooler(states[:, 0]), states


class EntailmentNetwork(nn.Layer):
    """Logits of the classes for pairs of posts.

    Args:
        text: None: texts are not looked at.
        vision: None: images are not looked at.
        shape: of what stands above the encoders.
        frozen_text, frozen_vision: the encoder's parameters stay as they are, and it computes as in evaluation.
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
        """Switch to training; frozen encoders go on computing as in evaluation."""
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
            present: `[batch, 2]` float32, 1 where there is an image; where not, the features are of no account.
        """
        text = tokens = padding = None
        if self.text is not None:
            assert input_ids is not None
            text, tokens = self.text(input_ids, token_type_ids, self.fusion.attends)
            padding = input_ids == self.text.config.pad_token_id
        return self.fusion(text, tokens, padding, images, present)
