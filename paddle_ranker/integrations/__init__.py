"""Classes of LangChain, LlamaIndex, Haystack and mteb over an index, a ranker or a tower, here or behind a URL.

    from paddle_ranker.integrations.langchain import PaddleRankerRetriever

    PaddleRankerRetriever(index="my_index", ranker="checkpoint/best").invoke("quiet mouse")
    PaddleRankerRetriever(url="http://127.0.0.1:8600").invoke("quiet mouse")

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. One file per framework, which it imports; `sources.py` is what they share.
"""
