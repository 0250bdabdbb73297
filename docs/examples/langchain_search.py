"""LangChain's retriever with reranking: python docs/examples/langchain_search.py INDEX RANKER QUERY"""

import sys

from langchain_classic.retrievers import ContextualCompressionRetriever

from paddle_ranker.integrations.langchain import PaddleRankerRerank, PaddleRankerRetriever

index, ranker, query = sys.argv[1:]
retriever = ContextualCompressionRetriever(
    base_compressor=PaddleRankerRerank(ranker=ranker, top_n=2),
    base_retriever=PaddleRankerRetriever(index=index, k=20),
)
for document in retriever.invoke(query):
    print(document.id, document.metadata["relevance_score"], document.page_content)
