"""Folders of Hugging Face's transformers: read one as a model folder's parts, and write one."""
