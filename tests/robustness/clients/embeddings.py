"""Clients of vectors that people have: OpenAI's and Voyage's Python SDKs, LangChain's, LiteLLM's of several services,
and Hugging Face's of Text Embeddings Inference. Each is called as its users call it, and sends what it sends by itself.

A group's texts are its titles; a client that can say that a text is a query asks for the group's query last.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import metadata
from typing import Any

from tests.robustness.clients.given import Scores, run, url

_KEY = "no key is asked for"


def openai(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask for base64, as OpenAI's client does unless it is told otherwise, and for the query as numbers."""
    from openai import OpenAI

    client, found = OpenAI(api_key=_KEY, base_url=url(given, "/v1")), []
    served = [model.id for model in client.models.list()]
    for group in given["groups"]:
        answer = client.embeddings.create(model="any", input=group["titles"])
        if answer.model not in served:
            raise ValueError(f"{answer.model} answers, and {served} are listed")
        query = client.embeddings.create(
            model="any", input=group["query"], encoding_format="float", extra_body={"input_type": "query"}
        )
        if not answer.usage.total_tokens >= 2 * len(group["titles"]):  # the special tokens of each text
            raise ValueError(f"{answer.usage.total_tokens} tokens are counted for {len(group['titles'])} texts")
        found.append([one.embedding for one in (*answer.data, *query.data)])
    return metadata.version("openai"), found


def openai_errors(given: dict[str, Any]) -> tuple[str, Scores]:
    """Read errors, then ask for the texts one at a time."""
    from openai import BadRequestError, OpenAI

    client, found = OpenAI(api_key=_KEY, base_url=url(given, "/v1"), max_retries=0), []
    for wrong in ([1, 2], [""] * 5000):
        try:
            client.embeddings.create(model="any", input=wrong)
        except BadRequestError as error:
            if (error.param, error.type) != ("input", "invalid_request_error"):
                raise ValueError(f"the client reads the error as {error!r}") from error
        except Exception as error:
            if "at most" not in str(error):
                raise
        else:
            raise ValueError("what is wrong was answered")
    for group in given["groups"]:
        asked = [(text, "document") for text in group["titles"]] + [(group["query"], "query")]
        answers = [
            client.embeddings.create(model="any", input=text, extra_body={"input_type": kind}) for text, kind in asked
        ]
        found.append([answer.data[0].embedding for answer in answers])
    return metadata.version("openai"), found


def langchain(given: dict[str, Any]) -> tuple[str, Scores]:
    """Embed documents, as a vector store does, as texts."""
    from langchain_openai import OpenAIEmbeddings

    server = {"api_key": _KEY, "base_url": url(given, "/v1"), "model": "any", "check_embedding_ctx_length": False}
    documents, queries = OpenAIEmbeddings(**server), OpenAIEmbeddings(**server, model_kwargs={"extra_body": _QUERY})
    found = []
    for group in given["groups"]:
        found.append([*documents.embed_documents(group["titles"]), queries.embed_query(group["query"])])
    return metadata.version("langchain-openai"), found


_QUERY = {"input_type": "query"}


def hugging_face(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask for each text's vector, and for the query's by the name of its prompt."""
    from huggingface_hub import InferenceClient

    client, found = InferenceClient(url(given)), []
    for group in given["groups"]:
        vectors = [client.feature_extraction(text, truncate=True)[0] for text in group["titles"]]
        vectors.append(client.feature_extraction(group["query"], prompt_name="query")[0])
        found.append([vector.tolist() for vector in vectors])
    return metadata.version("huggingface_hub"), found


def voyage(given: dict[str, Any]) -> tuple[str, Scores]:
    """Ask Voyage's API for documents and a query."""
    import voyageai

    client, found = voyageai.Client(api_key=_KEY, base_url=url(given, "/v1")), []
    for group in given["groups"]:
        documents = client.embed(group["titles"], model="any", input_type="document")
        query = client.embed([group["query"]], model="any", input_type="query", truncation=True)
        found.append([*documents.embeddings, *query.embeddings])
    return metadata.version("voyageai"), found


def litellm(service: str, path: str, given: dict[str, Any], **more: Any) -> tuple[str, Scores]:
    """Ask as a service's own API is asked, `path` being where LiteLLM is told to find it, with these options too."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices, which it would fetch when it is imported
    import litellm

    found = []
    for group in given["groups"]:
        asked = {"input": group["titles"], **more}
        answer = litellm.embedding(model=f"{service}/any", api_key=_KEY, api_base=url(given, path), **asked)
        found.append([one["embedding"] for one in answer.data])
    return metadata.version("litellm"), found


LITELLM = {
    "litellm_openai": partial(litellm, "openai", "/v1"),
    "litellm_vllm": partial(litellm, "hosted_vllm", "/v1"),
    "litellm_voyage": partial(litellm, "voyage", "/v1"),
    "litellm_jina": partial(litellm, "jina_ai", "/v1"),
    "litellm_infinity": partial(litellm, "infinity", ""),
    "litellm_tei": partial(litellm, "huggingface", "/embed", input_type="embed"),
}

if __name__ == "__main__":
    sys.exit(run(openai, openai_errors, langchain, hugging_face, voyage, **LITELLM))
