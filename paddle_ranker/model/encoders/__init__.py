"""Families of encoders, a file each.

    EncoderFamily    the entry of a family: network, parameters' names, tokenizer, pair encoder, configuration
    Architecture     the entry's part for transformers: names and settings, both ways
    EncoderConfig    the configuration of a BERT; a family that has more settings adds them in a subclass

A file adds its entry to `FAMILIES` when it is imported, by `families.py` beside this folder, which lists the files, or
by the `kind.py` of a guest; docs/architecture.md says what else a family needs. Its network, which needs Paddle, is in
`networks/` and is imported when one is made. A setting of a foreign `config.json` is honoured, refused by name
(`require`), or listed as without effect.

>>> from paddle_ranker.model.families import FAMILIES, config_from
>>> config = config_from({"model_type": "mpnet", "vocab_size": 30527})
>>> type(config).__name__, FAMILIES["mpnet"].classes
('MPNetConfig', 'MPNet')
"""
