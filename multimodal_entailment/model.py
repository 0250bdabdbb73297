"""The network: a text encoder over the pair of texts, one vision encoder for both images, and their fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from multimodal_entailment.info import LABELS, Shape
from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.lexical.token_comparison import Speller
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.match_levels import LEVELS, levels_of_pair
from paddle_ranker.model.networks.attention import MASKED
from paddle_ranker.model.networks.bert import Attention, Encoder
from paddle_ranker.model.networks.dropout import Dropout, Masks

if TYPE_CHECKING:
    from multimodal_entailment.vision import VisionEncoder


WIDTH = 256
_HEADS = 4


class Projection(nn.Layer):
    """Projection of features of any width to `WIDTH`: LayerNorm(x + dropout(dense(GELU(x)))) of x = dense(features)."""

    def __init__(self, width: int, dropout: float, masks: Masks):
        super().__init__()
        self.first = nn.Linear(width, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.dropout = Dropout(dropout, masks)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        """Project `[..., width]` to `[..., WIDTH]`."""
        projected = self.first(features)
        return self.norm(projected + self.dropout(self.second(F.gelu(projected))))


class DotAttention(nn.Layer):
    """Attention by dot products of unprojected states, with one learned scale (Luong et al., 2015, "dot")."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0 / math.sqrt(WIDTH)))

    def forward(self, query: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return `[batch, queries, WIDTH]`; the arguments are those of `Attention.forward`."""
        products = paddle.matmul(query, states, transpose_y=True) * self.scale
        return paddle.matmul(F.softmax(products + mask.squeeze(1).astype(products.dtype)), states)


class Missing(nn.Layer):
    """Layer that replaces missing features by a learned vector."""

    def __init__(self, width: int):
        super().__init__()
        self.vector = self.create_parameter([width], default_initializer=nn.initializer.Normal(0.0, 0.02))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Return `features` `[batch, n, width]`, replaced by the vector where `present` `[batch]` is 0."""
        kept = present.reshape([-1, 1, 1]).astype(features.dtype)
        return features * kept + self.vector.astype(features.dtype) * (1.0 - kept)


class PostFusion(nn.Layer):
    """Classifier of a pair of posts by the features of its texts, of image one and of image two.

    Texts, image one and image two have separate projections, so that image one differs from image two. With attention,
    the text attends to the regions of each image, and each image to the tokens of the texts, which gives further
    projections. All projections are concatenated; another projection combines them, and a dense layer gives the logits.

    Args:
        text_width, image_width: the widths of the features; None: the model has no such features.
        classes: number of logits.
        attention: concat (none), dot_attention or multihead; attention needs both kinds of features.
        joint: add the further projection; without it, the logits are a sum over the parts.
        compare_images: add a part made of the difference and the product of the two images' features.
        modality_dropout: in training, the share of examples that lose their texts, or equally often both images; it has
            an effect only with both kinds of features.
    """

    def __init__(
        self,
        text_width: Optional[int],
        image_width: Optional[int],
        classes: int,
        *,
        attention: str = "concat",
        joint: bool = True,
        compare_images: bool = True,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
    ):
        super().__init__()
        self.masks, self.modality_dropout = Masks(), modality_dropout
        has_both = text_width is not None and image_width is not None
        parts = 0
        self.attends = has_both and attention != "concat"
        if text_width is not None:
            self.project_text, parts = Projection(text_width, dropout, self.masks), parts + 1
            if self.attends:
                self.project_tokens = Projection(text_width, dropout, self.masks)
            if modality_dropout:
                self.missing_text = Missing(text_width)
        if image_width is not None:
            self.missing_image = Missing(image_width)
            self.project_image_1 = Projection(image_width, dropout, self.masks)
            self.project_image_2 = Projection(image_width, dropout, self.masks)
            self.compare = Projection(2 * image_width, dropout, self.masks) if compare_images else None
            parts += 2 + compare_images
        if self.attends:
            for name in ("text_to_image", "image_to_text"):
                is_dot = attention == "dot_attention"
                setattr(self, name, DotAttention() if is_dot else Attention(WIDTH, _HEADS, dropout, self.masks))
            parts += 4
        self.joint = Projection(parts * WIDTH, dropout, self.masks) if joint else None
        # The weights are small, as in a ranker's head, so that the first guess is that all classes are equally likely.
        small = paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(0.0, 0.02))
        self.classifier = nn.Linear(WIDTH if joint else parts * WIDTH, classes, weight_attr=small)

    def forward(
        self,
        text: Optional[Tensor],
        tokens: Optional[Tensor],
        padding: Optional[Tensor],
        images: Optional[tuple[Tensor, Tensor]],
        present: Optional[Tensor],
    ) -> Tensor:
        """Return the logits, `[batch, classes]` float32.

        Args:
            text: `[batch, text_width]`, the pooled features of the pair of texts.
            tokens: `[batch, length, text_width]`, the tokens' features; needed only for attention.
            padding: `[batch, length]`, 1 where a token is padding.
            images: features of the images' regions, `[batch, regions, image_width]` each.
            present: `[batch, 2]`, 1 where there is an image.
        """
        if self.training:
            self.masks.restart()
            text, tokens, present = self._without_some(text, tokens, present)
        parts, text_part = [], None
        if text is not None:
            text_part = self.project_text(text)
            parts.append(text_part)
        if images is not None and present is not None:
            regions = [self.missing_image(image, present[:, place]) for place, image in enumerate(images)]
            # Paddle Inference would print a line on standard output for each mean.
            pooled = [image.sum(axis=1) / image.shape[1] for image in regions]
            projections = (self.project_image_1, self.project_image_2)
            image_parts = [project(image) for project, image in zip(projections, pooled)]
            parts += image_parts
            if self.compare is not None:
                first, second = pooled
                parts.append(self.compare(paddle.concat([first - second, first * second], axis=-1)))
            if self.attends:
                assert text_part is not None and tokens is not None and padding is not None
                states = self.project_tokens(tokens)
                hidden = (padding.astype("float32") * MASKED).unsqueeze([1, 2])
                nothing = paddle.zeros_like(regions[0][:, :, 0]).unsqueeze([1, 2])  # all regions count
                for project, image, part in zip(projections, regions, image_parts):
                    parts.append(self.text_to_image(text_part.unsqueeze(1), project(image), nothing).squeeze(1))
                    parts.append(self.image_to_text(part.unsqueeze(1), states, hidden).squeeze(1))
        joined = paddle.concat(parts, axis=-1)
        if self.joint is not None:
            joined = self.joint(joined)
        return self.classifier(joined).astype("float32")

    def _without_some(
        self, text: Optional[Tensor], tokens: Optional[Tensor], present: Optional[Tensor]
    ) -> tuple[Optional[Tensor], Optional[Tensor], Optional[Tensor]]:
        """Remove the texts or the images of some examples, drawn from Paddle's random state (modality dropout)."""
        if not self.modality_dropout or text is None or present is None:
            return text, tokens, present
        drawn = paddle.rand([text.shape[0]])
        has_images = (drawn >= self.modality_dropout / 2).astype("float32")
        has_text = (drawn < 1.0 - self.modality_dropout / 2).astype("float32")
        text = self.missing_text(text.unsqueeze(1), has_text).squeeze(1)
        tokens = None if tokens is None else self.missing_text(tokens, has_text)
        return text, tokens, present * has_images.unsqueeze(1)


class PostTextEncoder(nn.Layer):
    """Encoder of `[CLS] text one [SEP] text two [SEP]`, with match embeddings of tokens that are in both texts.

    Args:
        config: the encoder's configuration.
        never_match: ids of special tokens, padding and [UNK]; None: no match embeddings.
        encoder: a pretrained encoder of that configuration; None: a new one with random parameters.
        spelling: the tokens' spelling, by which match levels compare tokens; None: tokens are compared by ids.
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
        """Return the pooled output `[batch, hidden]`, and the tokens' states `[batch, length, hidden]` or None.

        need_tokens: whether to return the tokens' states; without them, the last layer costs less
        """
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
        text: Optional[PostTextEncoder],
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
        self.fusion = PostFusion(
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
