"""Texts to ids, and ids to batches."""

# Values of --tokenizer. All select the same tokenizer, which gives the ids of these libraries.
TOKENIZER_NAMES = ("auto", "builtin", "tokenizers", "fast_tokenizer", "python")
POOLINGS = ("max", "mean_top_k")  # of logits of windows over a long title
TOP_K = 2  # default number of windows for mean_top_k
