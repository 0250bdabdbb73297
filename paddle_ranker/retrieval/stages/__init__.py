"""The stages of a search, from the caller's query to the page of results.

    SearchEngine      a collection with its searchers, fusion and ranker; `search` is what programs call
    Search            one query (or several at once) on its way: its stages, and the objects below, one after the other
    SearchedQuery     who searches for the query, and how its words are read
    FusedList         one list of candidates from the lists of all searchers, by `Fusion`
    CandidateRanking  the texts of the first candidates that a ranker scores, and the order by its scores
    ListPage          which documents are shown, after grouping, and where the next page begins
    HitDetails        what is shown of them, such as the place in a file
    SearchRanker      scores of the first candidates by a ranker, from texts or from the index's stored states

`check_parameters` (in `values/`) has refused bad parameters before a search begins. `run_searches` then calls the
stages in this order: the query's words are corrected and completed; each searcher finds its list; `Fusion` makes one;
the ranker orders its first documents; `Search.finish` groups and pages, and leaves out near duplicates if it groups by
content. Of the five objects from `SearchedQuery` to `HitDetails`, each knows only those before it. Loops within stages
call `turns.check`, which ends the search if its caller has left or its deadline has passed; only servers set one. A
server with `--degrade` leaves out ranking that would be late, and marks the answer `degraded`.

A `Search` holds one snapshot from its first stage to its last. From fusion on, equal scores are ordered by the smaller
id; a searcher's list, by the documents' numbers.

>>> import numpy as np
>>> from paddle_ranker.retrieval.stages.fusion import Candidates, Fusion
>>> from paddle_ranker.retrieval.stored.candidate_indexes import Hits
>>> by_words, by_meaning = Hits(["a", "b"], np.array([9.0, 2.0])), Hits(["b", "c"], np.array([0.8, 0.7]))
>>> candidates = Candidates.of({"words": by_words, "vectors": by_meaning})
>>> order, _ = Fusion("rrf").best(candidates, 1)
>>> [candidates.ids[number] for number in order]
['b']
"""
