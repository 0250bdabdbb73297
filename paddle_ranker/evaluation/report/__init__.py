"""Show a comparison: as text, as JSON, as a list by query, as pictures and as a page."""
