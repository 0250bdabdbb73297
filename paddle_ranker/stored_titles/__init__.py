"""Stored titles: what a ranker computes of each title alone, once, so that a query costs the upper layers only.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by these modules:

    COMMANDS            store: the states of a file's titles, in a folder
    BY_STORE            what `--store` does in `predict` and `rank`
    STATES_KINDS        states of an index's documents: computed, kept in segments, merged, read by searches
    SCORED_BY_STATES    what a server does with an index's stored states
    RANKER_PARTS        lower and upper layers, which an export writes beside the whole graph
    QUANTIZED_PARTS     the upper layers in 8-bit integers
"""
