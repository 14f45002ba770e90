"""Embeddings: read as unit vectors, joined from files, clustered."""
