"""From raw text to an encoder: vocabulary, masked language model, fill-mask."""
