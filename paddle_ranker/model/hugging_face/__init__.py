"""Read and write model folders of Hugging Face's transformers."""
