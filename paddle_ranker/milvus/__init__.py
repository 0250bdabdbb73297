"""Vectors of an index folder in Milvus: in a file of Milvus Lite, or on a server.

A guest of this package: no module outside imports it but the tutorial's script, and without this folder and its line in
`paddle_ranker.recipes` everything else works. It plugs in by `indexes.py`:

    INDEXES     milvus: `index build --method milvus`, `mine --method milvus`

An index folder keeps its vectors as any other. `MilvusSearch` of `store.py`, a `VectorStore`, has them in a collection
of Milvus as well, which finds candidates; the folder's vectors give the scores.
"""
