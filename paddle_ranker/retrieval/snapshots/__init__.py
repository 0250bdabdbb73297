"""The documents of an index at one time, which searches read.

    Snapshot         the interface of the documents at one time; `LocalSnapshot` has them in a folder
    Generation       what `index.json` lists (with shards, several): an `OpenSegment` for each segment
    OpenSegment      a segment and the mask of its removed documents
    Matches          the documents that match a query: their number, facets and order by fields
    IndexModels      the copies of towers and of a ranker that the folder has
    StatesKind       how segments keep what a ranker computed of each document, if a guest adds that

A search asks its snapshot for the documents with a filter and with phrases, then for the best by words
(`WordSearcher` over all segments, as if they were one) and by vectors (`search_vectors`), then for what a hit shows.
Documents are numbered through all segments in order. A removed document keeps its row until its segment is merged.

A snapshot never changes: a writer makes the next one, and the segments that both have stay open once.
"""
