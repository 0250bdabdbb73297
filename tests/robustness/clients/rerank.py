"""Rerank clients that people have: Cohere's and Voyage's Python SDKs, LangChain's, LiteLLM's of several services, and
LlamaIndex's of Text Embeddings Inference. Each is called as its users call it, and sends what it sends by itself."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import metadata
from typing import Any

from tests.robustness.clients.given import Scores, by_index, run, url

_KEY = "no key is asked for"


def cohere_v1(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask `/v1/rerank`."""
    import cohere

    return metadata.version("cohere"), _cohere(cohere.Client(api_key=_KEY, base_url=url(given)), given)


def cohere_v2(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask `/v2/rerank`."""
    import cohere

    return metadata.version("cohere"), _cohere(cohere.ClientV2(api_key=_KEY, base_url=url(given)), given)


def _cohere(client: Any, given: dict[str, Any]) -> Scores:
    found = []
    for group in given["groups"]:
        answer = client.rerank(model="any", query=group["query"], documents=group["titles"])
        found.append(by_index([(result.index, result.relevance_score) for result in answer.results]))
    return found


def langchain(given: dict[str, Any]) -> tuple[str, Scores]:
    """Compress documents, as a retriever does, and rank them."""
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    found = []
    for group in given["groups"]:
        titles = group["titles"]
        ranker = CohereRerank(cohere_api_key=_KEY, base_url=url(given), model="any", top_n=len(titles))
        documents = [Document(page_content=title, metadata={"place": place}) for place, title in enumerate(titles)]
        ranked = ranker.compress_documents(documents, group["query"])
        found.append(by_index([(one.metadata["place"], one.metadata["relevance_score"]) for one in ranked]))
    return metadata.version("langchain-cohere"), found


def tei(given: dict[str, Any]) -> tuple[str, Scores]:
    """Postprocess nodes, as a query engine does."""
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    found = []
    for group in given["groups"]:
        titles = group["titles"]
        ranker = TextEmbeddingInference(base_url=url(given), top_n=len(titles))
        nodes = [NodeWithScore(node=TextNode(text=title, id_=str(place))) for place, title in enumerate(titles)]
        ranked = ranker.postprocess_nodes(nodes, query_str=group["query"])
        found.append(by_index([(int(node.node.node_id), float(node.score)) for node in ranked]))
    return metadata.version("llama-index-postprocessor-tei-rerank"), found


def voyage(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask Voyage's API, and read how many tokens it has counted."""
    import voyageai

    client, found = voyageai.Client(api_key=_KEY, base_url=url(given, "/v1")), []
    for group in given["groups"]:
        answer = client.rerank(group["query"], group["titles"], model="any")
        if not answer.total_tokens >= 3 * len(group["titles"]):  # the special tokens of each pair
            raise ValueError(f"{answer.total_tokens} tokens are counted for {len(group['titles'])} pairs")
        found.append(by_index([(result.index, result.relevance_score) for result in answer.results]))
    return metadata.version("voyageai"), found


def litellm(service: str, path: str, given: dict[str, Any], **more: Any) -> tuple[str, Scores]:
    """Ask as a service's own API is asked, `path` being where LiteLLM is told to find it, with these options too."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices, which it would fetch when it is imported
    import litellm

    found = []
    for group in given["groups"]:
        asked = {"query": group["query"], "documents": group["titles"], **more}
        answer = litellm.rerank(model=f"{service}/any", api_key=_KEY, api_base=url(given, path), **asked)
        found.append(by_index([(result["index"], result["relevance_score"]) for result in answer.results]))
    return metadata.version("litellm"), found


LITELLM = {
    "litellm_cohere": partial(litellm, "cohere", ""),
    # It reads documents as Infinity writes them, as texts, where all others read objects.
    "litellm_infinity": partial(litellm, "infinity", "", return_documents=False),
    "litellm_jina": partial(litellm, "jina_ai", "/v1/rerank"),
    "litellm_tei": partial(litellm, "huggingface", ""),
    "litellm_vllm": partial(litellm, "hosted_vllm", ""),
    "litellm_voyage": partial(litellm, "voyage", ""),
}

if __name__ == "__main__":
    sys.exit(run(cohere_v1, cohere_v2, langchain, tei, voyage, **LITELLM))
