"""Models that read where words stand on a page: LayoutLM and LiLT.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `kind.py`:

    FAMILIES    layoutlm, lilt

`BoxedPairEncoder` gives each token the box of its word, which is a place of the title's text; `networks.py` embeds it.
"""
