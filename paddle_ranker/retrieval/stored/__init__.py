"""Store documents in an index folder: its description, the fields of its documents, and segments.

    IndexInfo    `index.json`: settings, digests of towers, and the segments that count, each with its removed documents
    Schema       the fields, each with a type of `FIELD_TYPES`: what is searched, filtered, embedded and ranked
    Segment      some documents in files that never change
    Document     a document as callers give it: id, text, title and fields
    CandidateIndex    the interface of whatever finds candidates; `INDEXES` names its kinds

A segment's folder has `documents.jsonl` and the places of its lines, an inverted index of words for each searched
field, vectors of each embedded field, sorted values of filtered fields on demand, and `segment.json` with the
checksum of every file. `write_segment` writes it whole under its final name before any `index.json` lists it.

Nothing here trusts a folder: names have no path in them, sizes are compared with the files, numbers have ranges.

>>> from paddle_ranker.retrieval.stored.schema import Field, Schema
>>> schema = Schema((Field("price", "number"), Field("body", "text")))
>>> [field.name for field in schema.fields if field.type == "number"]
['price']
"""
