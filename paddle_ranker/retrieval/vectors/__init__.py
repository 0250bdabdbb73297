"""Vectors: towers at work, files of vectors, exact search among them, and faiss.

    Tower            texts, queries, pictures or sounds to vectors of length one
    FileTower        a tower for a field of files: which files it reads, and how
    StoredVectors    vectors in a file, as float32, float16, bfloat16 or int8 with scales
    FaissSegment     a faiss index of a segment's vectors, which finds candidates

Exact search multiplies in blocks, between which other searches take turns. faiss only proposes: the stored vectors
score its candidates, so a score never depends on how a document was found.

>>> import numpy as np
>>> from paddle_ranker.retrieval.vectors.text_vectors import normalised
>>> normalised(np.array([[3.0, 4.0]], np.float32)).round(1).tolist()
[[0.6000000238418579, 0.800000011920929]]
"""
