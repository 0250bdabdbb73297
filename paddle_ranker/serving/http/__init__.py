"""HTTP: middleware, and the routes of rerank, embeddings, searches, documents, files, feedback, the page and admin."""
