"""ViLT: one encoder reads a text and the patches of a picture (Kim et al., 2021, "Vision-and-Language Transformer")."""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.model.networks.bert import Embeddings, Encoder, places_of, types_of
from paddle_ranker.model.networks.dropout import Masks
from paddle_ranker.pictures.picture_config import GRID, ViltConfig


class ViltEmbeddings(Embeddings):
    """Embeddings of a text, as BERT's, then of a token for the whole picture, then of the picture's patches."""

    config: ViltConfig

    def __init__(self, config: ViltConfig, masks: Masks):
        super().__init__(config, masks)
        size, self.side = config.hidden_size, config.image_size // config.patch_size
        self.patch_embeddings = nn.Conv2D(3, size, config.patch_size, config.patch_size)
        self.class_embedding = nn.Embedding(1, size)
        self.patch_positions = nn.Embedding(self.side * self.side + 1, size)
        self.modality_embeddings = nn.Embedding(config.modality_type_vocab_size, size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        types, places = types_of(token_type_ids), places_of(token_type_ids, len(self.config.place_limits))
        is_picture = types.unsqueeze(-1).astype("float32")
        is_patch = (places[:, :, 2:3] > 0).astype("float32")
        pixels = (places[:, :, GRID:].astype("float32") / 255 - 0.5) / 0.5
        weight = self.patch_embeddings.weight.reshape([self.config.hidden_size, -1])
        patches = paddle.matmul(pixels, weight, transpose_y=True) + self.patch_embeddings.bias
        patches = patches + self._interpolated(places)
        whole = self.class_embedding.weight[0] + self.patch_positions.weight[0]
        picture = is_patch * patches + (1 - is_patch) * whole + self.modality_embeddings.weight[1]
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        text = Embeddings.forward(self, input_ids, paddle.zeros_like(types), None) + self.modality_embeddings.weight[0]
        hidden = is_picture * picture + (1 - is_picture) * text
        return hidden if extra is None else hidden + extra

    def _positions(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = paddle.cumsum(paddle.ones_like(input_ids), axis=1) - paddle.full([1], 1, "int64")
        # Patches follow the text, and have the positions of their grid instead.
        return paddle.minimum(positions, paddle.full([1], self.config.max_position_embeddings - 1, "int64"))

    def _interpolated(self, places: Tensor) -> Tensor:
        """Return the position embeddings of patches, `[batch, length, size]`, interpolated from the learned grid.

        places: `[batch, length, numbers]`, of which the first four are a patch's row and column, and the picture's
            counts of rows and columns
        """
        weights, cells = [], []
        for number in (0, 1):
            place, count = (places[:, :, index].astype("float32") for index in (number, number + 2))
            steps = paddle.maximum(count - 1, paddle.ones_like(count))
            place = place * (self.side - 1) / steps
            low = paddle.minimum(paddle.floor(place), paddle.full_like(place, max(0, self.side - 2)))
            high = paddle.minimum(low + 1, paddle.full_like(place, self.side - 1))
            weights.append((1 - (place - low), place - low))
            cells.append((low.astype("int64"), high.astype("int64")))
        embeddings = 0
        for row_weight, row in zip(weights[0], cells[0]):
            for column_weight, column in zip(weights[1], cells[1]):
                position = self.patch_positions(row * self.side + column + 1)
                embeddings = embeddings + (row_weight * column_weight).unsqueeze(-1) * position
        return embeddings


class ViltEncoder(Encoder):
    """Encoder of ViLT."""

    config: ViltConfig
    embeddings_class = ViltEmbeddings

    def _initialise(self) -> None:
        """Initialise as BERT does, but draw the embeddings that BERT lacks from a truncated N(0, 1).

        They then have the scale of a text's embeddings, which pass a LayerNorm. Smaller embeddings would be lost beside
        the pixels.
        """
        super()._initialise()
        draw, embeddings = nn.initializer.TruncatedNormal(), self.embeddings
        for embedding in (embeddings.class_embedding, embeddings.patch_positions, embeddings.modality_embeddings):
            draw(embedding.weight)
