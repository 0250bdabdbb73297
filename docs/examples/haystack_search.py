"""Haystack's pipeline with a ranker: python docs/examples/haystack_search.py INDEX RANKER QUERY"""

import sys

from haystack import Pipeline

from paddle_ranker.integrations.haystack import PaddleRankerRanker, PaddleRankerRetriever

index, ranker, query = sys.argv[1:]
pipeline = Pipeline()
pipeline.add_component("retriever", PaddleRankerRetriever(index, top_k=20))
pipeline.add_component("ranker", PaddleRankerRanker(ranker, top_k=2))
pipeline.connect("retriever.documents", "ranker.documents")
for document in pipeline.run({"retriever": {"query": query}, "ranker": {"query": query}})["ranker"]["documents"]:
    print(document.id, document.score, document.content)
