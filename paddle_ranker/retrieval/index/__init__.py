"""Index folders: opening them, changing them, cutting them into shards.

    Collection          an open folder; `snapshot()` is searched, `writer` changes it
    CollectionWriter    adds, removes and merges; one process at a time, behind the folder's lock
    IndexFolder         the folder itself, held by device and inode: a moved link leads nowhere else
    Addition            documents on their way to new segments: which are new, their ids, their vectors
    lend_tower          lets a tower behind a URL, which the guest `remote_models` asks, make the vectors
    ShardFolders        several folders as one, with the words' statistics of all

The life of a document: `kept_rows` reads the files in its fields and makes a document of each part; `Addition` compares
it with the index, embeds it and writes it with others as a segment; `CollectionWriter._commit` replaces `index.json`,
and only then does the document exist. `merge_segments` later copies it into a larger segment. The writer
deletes files that no `index.json` names any more; open searches keep what they have mapped.

A change counts whole or not at all, also over several shards. What a killed addition has embedded is used by the next.

>>> from tempfile import TemporaryDirectory
>>> from paddle_ranker.retrieval.index.collection import Collection
>>> from paddle_ranker.retrieval.stored.candidate_indexes import Document
>>> from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
>>> with TemporaryDirectory() as folder:
...     collection = Collection.create(folder, IndexInfo(WordsInfo("standard"), None))
...     first = collection.writer.add([Document("a", "red shoes"), Document("b", "a lace")])
...     again = collection.writer.add([Document("a", "red shoes"), Document("b", "two laces")])
...     collection.close()
>>> (first.new, first.unchanged), (again.new, again.replaced, again.unchanged)
((2, 0), (0, 1, 1))
"""
