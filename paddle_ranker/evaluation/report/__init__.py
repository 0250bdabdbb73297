"""Show a comparison as text, as JSON, as a list of queries, as pictures or as an HTML page."""
