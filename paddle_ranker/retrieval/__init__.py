"""Retrieve candidate documents for a query from a collection.

The objects, and how they hold each other:

    Collection      an open index folder; `writer`, a `CollectionWriter`, changes it
    LocalSnapshot   its documents at one time, which every search asks; never changes
    Generation      what one `index.json` lists: segments, each with a mask of its removed documents
    Segment         some documents in files that never change: their texts, fields, words (`Postings`) and vectors
    Schema          which fields documents have, and which of them are searched, embedded and ranked

The life of a document: `Addition` finds out whether it is new, `write_segment` writes it with others, the commit of the
writer names the segment in `index.json`; later `merge_segments` moves it to a larger segment; a removal or a newer
version only marks its row. The life of a query: `parse_query` takes its phrases apart, `QueryRewriter` corrects its
words, each searcher (words, a vector field) finds a list, `Fusion` makes one of them, a ranker orders its first
documents, and `Search.finish` groups and pages it. `run_searches` calls these stages in order.

Whoever holds a snapshot sees the same documents until it lets go. A commit counts whole or not at all. Searches by
words load neither the code of models nor that of writing. Equal scores are ordered by the
documents' order within a searcher, and by id from fusion on.

>>> from tempfile import TemporaryDirectory
>>> from paddle_ranker.retrieval.stored.candidate_indexes import Document
>>> from paddle_ranker.retrieval.index.collection import Collection
>>> from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
>>> from paddle_ranker.retrieval.stages.search import SearchSettings
>>> from paddle_ranker.retrieval.stages.search_engine import SearchEngine
>>> with TemporaryDirectory() as folder:
...     collection = Collection.create(folder, IndexInfo(WordsInfo("standard"), None))
...     _ = collection.writer.add([Document("a", "a lace for a shoe"), Document("b", "red shoes")])
...     before, removed = collection.snapshot(), collection.writer.remove(["b"])
...     found = [result.id for result in SearchEngine(collection, SearchSettings()).search("shoe")]
...     collection.close()
>>> len(before), removed, len(collection.snapshot()), found
(2, 1, 1, ['a'])
"""
