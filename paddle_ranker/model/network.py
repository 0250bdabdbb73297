"""Network of rankers: an encoder of the pair, match-level embeddings, and a head with one logit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import Tensor, nn

from paddle_ranker.array_types import Array
from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.lexical.token_comparison import Speller
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.config import ENCODER_PREFIX, EncoderConfig
from paddle_ranker.model.match_levels import LEVELS, levels_of_pair
from paddle_ranker.model.networks.bert import Encoder, pool_states, types_of
from paddle_ranker.model.networks.dropout import Dropout
from paddle_ranker.model.networks.lora import merged
from paddle_ranker.model.parameters import initialize, set_parameters

if TYPE_CHECKING:
    from paddle_ranker.lexical.head import FeatureHead, LexicalHead

APART = ("position_tower.",)  # prefixes of parameters that exist only during a training, not in a ranker's folder
SIMILARITY_TOWER = "similarity_head.tower."  # prefix of parameters that are stored in a subfolder of a ranker's folder


def _same(x: Tensor) -> Tensor:
    return x


# Activations of the steps after pooling, by their names in `RankerInfo.steps`
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _same,
    "norm": _same,
    "normalize": lambda x: F.normalize(x, axis=-1),
    **{name: getattr(F, name) for name in ("tanh", "relu", "gelu", "silu", "sigmoid")},
}


class Narrow(nn.Layer):
    """Linear layers that compress the stored states of a split ranker's titles, and expand them (as in PreTTR)."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.width = width
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)

    @paddle.no_grad()
    def fit(self, states: NDArray[np.float32]) -> None:
        """Initialise the layers as the projection on the principal components of `states`, `[n, size]`."""
        mean = states.mean(axis=0, dtype=np.float64)
        _, axes = np.linalg.eigh(np.cov(states, rowvar=False))
        kept = axes[:, -self.width :]
        for layer, weight, bias in ((self.down, kept, -mean @ kept), (self.up, kept.T, mean)):
            layer.weight.set_value(weight.astype(np.float32))
            layer.bias.set_value(bias.astype(np.float32))


class CellLogits(NamedTuple):
    """Logits for selecting the cells of an answer, `[batch, length]` float32 each.

    tokens: logit of each token, or (if the configuration says so) the mean logit of its cell's tokens
    cells: mean logit of the tokens of each token's cell; 10,000 less for tokens outside cells

    If the configuration sets `select_one_column`, both are also 10,000 less outside the selected column.
    """

    tokens: Tensor
    cells: Tensor


class RankerNetwork(nn.Layer):
    """Network that scores pairs: one logit per pair, probability = sigmoid(logit).

    Args:
        config: configuration of the encoder.
        never_match: ids of tokens whose match level is always 0: special tokens, padding, [UNK]. None: no match-level
            embeddings.
        lexical: head that adds lexical features to the logit; None: no lexical features.
        encoder: pretrained encoder; None: an encoder with random parameters.
        spelling: spelling of tokens, by which match levels compare them; None: they are compared by their ids.
        pooling: "first", "mean", "max" or "last"; "": the encoder's own pooling.
        steps: layers from the pooled vector to the logit, as in `RankerInfo`; (): a linear layer.
        similarity: head that adds the cosine of both texts to the logit; None: no such head.
        stored_width: width of a split encoder's states between the lower and the upper layers; 0: the encoder's own.

    Attributes:
        position_tower: None; a training may set a network whose output is added to the logits.
        loaded_before: prefixes of parameters that a resumed training need not load.
    """

    loaded_before = (SIMILARITY_TOWER,)

    def __init__(
        self,
        config: EncoderConfig,
        never_match: Optional[Sequence[int]],
        lexical: Optional[LexicalHead] = None,
        *,
        encoder: Optional[Encoder] = None,
        spelling: Optional[Spelling] = None,
        pooling: str = "",
        steps: Sequence[tuple[str, int]] = (),
        similarity: Optional[FeatureHead] = None,
        stored_width: int = 0,
    ):
        super().__init__()
        self.config, self.pooling = config, pooling
        self.kinds = [kind for kind, _ in steps] or ["linear"]
        self.speller = None if spelling is None else Speller(config.vocab_size, spelling)
        self.encoder = Encoder(config) if encoder is None else encoder
        self.never_match = None if never_match is None else sorted(never_match)
        if self.never_match is not None:
            # Zeros leave the scores of a pretrained checkpoint unchanged until training.
            self.match_embeddings = nn.Embedding(
                LEVELS, config.hidden_size, weight_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
            )
        self.narrow = Narrow(config.hidden_size, stored_width) if stored_width else None
        self.dropout = Dropout(config.hidden_dropout_prob, self.encoder.masks)
        width = config.hidden_size
        self.steps = nn.LayerList()
        for kind, size in steps[:-1]:
            layer = nn.LayerNorm(width) if kind == "norm" else nn.Linear(width, size) if size else nn.Identity()
            self.steps.append(layer)
            width = size or width
        self.head = nn.Linear(
            width,
            1,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(0.0, config.initializer_range)),
        )
        self.lexical, self.similarity_head = lexical, similarity
        self.position_tower: Optional[nn.Layer] = None

    def own_state(self) -> dict[str, Tensor]:
        """Return the parameters that a ranker's parameter file contains, by name.

        The file lacks parameters of `APART` and of the similarity's tower, and an unused pooler. Adapters are merged.
        """
        # With `pooling`, the encoder's pooler is unused and may be random; it must not look trained.
        apart = (*APART, SIMILARITY_TOWER, *((f"{ENCODER_PREFIX}pooler.",) if self.pooling else ()))
        return merged({name: value for name, value in self.state_dict().items() if not name.startswith(apart)})

    @property
    def configs(self) -> tuple[EncoderConfig, ...]:
        """Configurations of the encoders: one, or in a blend one for each member."""
        return (self.config,)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch]` float32; ids and token types are as in `Encoder.forward`."""
        if self.narrow is not None:
            return self.above(self.apart(input_ids, token_type_ids), input_ids, token_type_ids)
        types = types_of(token_type_ids)
        extra = self._match_levels(input_ids, types)
        if self.config.names_cells:
            selected = self._selected(self.encoder(input_ids, token_type_ids, extra), input_ids, token_type_ids)
            return self._with_features(selected.cells.max(axis=-1), input_ids, types)
        encode = self.encoder if self.pooling else self.encoder.pooled
        return self._logits(encode(input_ids, token_type_ids, extra), input_ids, types)

    def answers(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """Return the logits of a ranker that answers questions by naming cells of a table.

        Returns the logits of tables, `[batch]`, of tokens, `[batch, length]`, and of operations, `[batch, operations]`
        (None if the ranker chooses no operation).
        """
        types = types_of(token_type_ids)
        extra = self._match_levels(input_ids, types)
        states, operation = self.encoder(input_ids, token_type_ids, extra), self.encoder.cells.operation
        selected = self._selected(states, input_ids, token_type_ids)
        logits = self._with_features(selected.cells.max(axis=-1), input_ids, types)
        return logits, selected.tokens, None if operation is None else operation(self.encoder.pool(states, input_ids))

    def _selected(self, states: Tensor, input_ids: Tensor, token_type_ids: Tensor) -> CellLogits:
        logits = self.head(self.dropout(states)).squeeze(-1)
        selected: CellLogits = self.encoder.cells.select(states, logits, input_ids, token_type_ids)
        return selected

    @property
    def states_width(self) -> int:
        """Width of the states that `apart` returns."""
        return self.config.hidden_size if self.narrow is None else self.narrow.width

    def apart(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the states after the lower layers of a split encoder, `[batch, length, states_width]`."""
        states = self.encoder.apart(input_ids, token_type_ids)
        return states if self.narrow is None else self.narrow.down(states)

    def above(
        self, states: Tensor, input_ids: Tensor, token_type_ids: Tensor, similarity: Optional[Tensor] = None
    ) -> Tensor:
        """Return the logits, `[batch]`, from the states that `apart` returns.

        input_ids, token_type_ids: as in `forward`
        similarity: the similarity head's addition to the logits, `[batch]`; None: computed from the ids
        """
        extra = self._match_levels(input_ids, token_type_ids)
        states = states if self.narrow is None else self.narrow.up(states)
        outputs = self.encoder.above(states, input_ids, token_type_ids, extra, pools=not self.pooling)
        return self._logits(outputs, input_ids, token_type_ids, similarity)

    def _match_levels(self, input_ids: Tensor, token_type_ids: Tensor) -> Optional[Tensor]:
        if self.never_match is None:
            return None
        return self.match_embeddings(levels_of_pair(self.speller, input_ids, token_type_ids, self.never_match))

    def _logits(
        self, outputs: Tensor, input_ids: Tensor, token_type_ids: Tensor, similarity: Optional[Tensor] = None
    ) -> Tensor:
        pooled = outputs
        if self.pooling:
            pooled = pool_states(outputs, input_ids != self.config.pad_token_id, self.pooling)
        for kind, layer in zip(self.kinds, self.steps):
            pooled = _ACTIVATIONS[kind](layer(pooled))
        # Mixed precision gives a half-precision product; losses and scores need float32.
        logit = _ACTIVATIONS[self.kinds[-1]](self.head(self.dropout(pooled))).squeeze(-1).astype("float32")
        return self._with_features(logit, input_ids, token_type_ids, similarity)

    def _with_features(
        self, logit: Tensor, input_ids: Tensor, token_type_ids: Tensor, similarity: Optional[Tensor] = None
    ) -> Tensor:
        if self.lexical is not None:
            logit = logit + self.lexical(input_ids, token_type_ids)
        if self.similarity_head is not None:
            logit = logit + (self.similarity_head(input_ids, token_type_ids) if similarity is None else similarity)
        return logit


class AnsweringNetwork(nn.Layer):
    """Network of a ranker that names cells of a table; its outputs are those of `RankerNetwork.answers`."""

    def __init__(self, network: RankerNetwork):
        super().__init__()
        self.network, self.configs = network, network.configs

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        return self.network.answers(input_ids, token_type_ids)


class ScoringNetwork(nn.Layer):
    """Network to export: returns a ranker's probability, calibrated if the ranker is, and its logit."""

    def __init__(self, network: RankerNetwork, calibration: Optional[Calibration]):
        super().__init__()
        self.network = network
        self.scale, self.shift = (1.0, 0.0) if calibration is None else (calibration.scale, calibration.shift)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the logits, `[batch, 1]` float32 each; inputs as in `RankerNetwork.forward`."""
        logit = self.network(input_ids, token_type_ids).unsqueeze(-1)
        return F.sigmoid(logit * self.scale + self.shift), logit


_MAY_BE_NEW = ("head.", "match_embeddings.", "lexical.", "similarity_head.", "narrow.")


def load_heads(network: RankerNetwork, named: dict[str, Array], *, allow_new: bool) -> list[str]:
    """Copy arrays into the parts of a ranker other than its encoder; return the names of the parts without arrays.

    named: arrays, named as by `name_parameters`
    allow_new: whether heads, match embeddings and the layers of `Narrow` may be missing, as in a training; they are
        then initialised. Otherwise none may be missing, since a random head gives random scores

    Raises `CheckpointError`, naming the tensors, if one is missing, is not in the network, or has another shape.
    """
    heads = {name: array for name, array in named.items() if not name.startswith(ENCODER_PREFIX)}
    apart = (ENCODER_PREFIX, SIMILARITY_TOWER)  # loaded already
    missing = set_parameters(network, heads, may_lack=(*apart, *(_MAY_BE_NEW if allow_new else ())))
    new, state = [name for name in missing if not name.startswith(apart)], network.state_dict()
    for name in new:
        initialize(state[name])
    return parts_of(new)


def parts_of(parameters: Iterable[str]) -> list[str]:
    """Return the names of the parts to which parameters belong, sorted: `head` for `head.weight`."""
    return sorted({name.rpartition(".")[0] for name in parameters})
