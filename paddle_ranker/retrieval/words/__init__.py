"""Words: from a query as typed to documents by BM25F.

    ParsedQuery      the query without its quoted phrases and exclusions, and these
    QueryRewriter    corrections, completions, other spellings and synonyms, each with a penalty
    WordQuery        the rewritten query: groups of words that stand for each other
    WordSearcher     BM25F over the parts of a collection, with the statistics of all

A word as written counts more than a correction, a correction more than nothing: only words that no live document has
are corrected. Postings themselves, the analyser and its stems are in `paddle_ranker.lexical`.

>>> from paddle_ranker.retrieval.words.query_parsing import parse_query
>>> parsed = parse_query('shoe "red lace" -leather')
>>> parsed.phrases, parsed.excluded
(('red lace',), ('leather',))
"""
