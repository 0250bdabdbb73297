"""HTTP: middleware, admin routes, rerank routes."""
