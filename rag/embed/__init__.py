"""Embedders: a deterministic fake, sentence-transformers in-process, an HTTP endpoint."""
