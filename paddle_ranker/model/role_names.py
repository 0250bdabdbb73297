"""Names of the roles in which commands open models; `paddle_ranker.model.model_folder` defines the roles.

With these names, commands state the roles that they accept without importing the code that opens models
(`command_registry.Command.takes`), and `doctor --model` reports the roles of a folder.
"""

from __future__ import annotations

MODEL, TRAINED_MODEL = "model", "trained model"
RANKER, TRAINED_RANKER, MEMBER = "ranker", "trained ranker", "ranker of one network"
TOWER, TRAINED_TOWER, TEXT_TOWER, SERVED_TOWER = "tower", "trained tower", "tower of texts", "served tower"
ENCODER, WORD_PIECE_ENCODER, MASKED_LM = "encoder", "encoder of WordPiece", "masked language model"
EXPORTED, QUANTIZABLE = "exported model", "exported model that can be quantized"
CONVERTIBLE = "model that transformers or sentence-transformers knows"
