"""Models that read a table cell by cell, and answer from it: TAPAS.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `kind.py`:

    FAMILIES    tapas, whose `Architecture.heads` are those of rankers that name cells

`TablePairEncoder` gives each token its column, row and rank; `cell_values.py` reads the numbers and dates that are
ranked. `networks.py` embeds them, and selects the cells and the operation of an answer: `RankerNetwork.answers` returns
logits of tokens beside that of the table, and `TablePairEncoder.answers` makes them a `TableAnswer` of
`scoring/table_answers.py`, which rankers, searches and servers show.
"""
