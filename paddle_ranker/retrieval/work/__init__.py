"""Long computations: turns between searches, work in steps, and the best of many scores.

    Turns     which of all searches computes next, so that small ones never wait long
    Kept      work that is done once for all, such as sorting a field, in steps between which others may run
    Best      the k best scores of a collection that is scored part by part

Every loop over data calls `check`: there a search ends whose caller has left or whose deadline has passed, and there
its turn ends if others wait. Nothing here knows of documents.

>>> import numpy as np
>>> from paddle_ranker.retrieval.work.top_k import Best
>>> best = Best(2)
>>> best.add(np.array([0, 1, 2]), np.array([0.1, 0.9, 0.5]))
>>> [array.tolist() for array in best.result()]
[[1, 2], [0.9, 0.5]]
"""
