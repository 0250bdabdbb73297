"""Texts to ids, and ids to batches."""

# Accepted for --tokenizer. All select the built-in tokenizer: tests prove that it gives these libraries' ids.
TOKENIZER_NAMES = ("auto", "builtin", "tokenizers", "fast_tokenizer", "python")
POOLINGS = ("max", "mean_top_k")  # of the logits of windows over a long title
TOP_K = 2  # windows of mean_top_k, where nothing else is said
