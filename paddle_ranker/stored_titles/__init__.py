"""Stored titles: what the lower layers of a ranker compute of each title alone, once, so that a query costs the rest.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works: a ranker trained with `--stored_titles` scores whole pairs, and what would store states or read
stored ones is refused by name. It plugs in by these modules:

    commands.py    COMMANDS           store: the states of a file's titles, in a folder
    stores.py      BY_STORE           what `--store` does in `predict` and `rank`
    kind.py        RANKER_PARTS       lower and upper layers, which an export writes beside the whole graph
    quantized.py   QUANTIZED_PARTS    the upper layers in 8-bit integers
    states.py      STATES_KINDS       states of an index's documents: computed, kept in segments, merged, read
    plugin.py      SERVED_STATES      the same states on a server, in the ranker's queue

`SplitRanker` of `stored_ranker.py` runs the two parts of a ranker (`split.py`, `signatures.py`), in any engine.
`TitleStates` of `title_states.py` is a folder of states, the same for titles of a file and for a segment's documents.
`document_states.py` computes those of an index, and `stored_scores.py` reads them for the candidates of a search.

Scores by states are those of whole pairs, but for the rounding of the stored numbers. States belong to one version of
the lower layers, which a digest names; those of another are never used.
"""
