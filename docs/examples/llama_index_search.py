"""LlamaIndex's query engine with reranking: python docs/examples/llama_index_search.py INDEX RANKER QUERY"""

import sys

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from paddle_ranker.integrations.llama_index import PaddleRankerRerank, PaddleRankerRetriever

index, ranker, query = sys.argv[1:]
engine = RetrieverQueryEngine.from_args(
    PaddleRankerRetriever(index, similarity_top_k=20),
    llm=MockLLM(),  # the place of your model
    node_postprocessors=[PaddleRankerRerank(ranker=ranker, top_n=2)],
)
for node in engine.query(query).source_nodes:
    print(node.node_id, node.score, node.text)
