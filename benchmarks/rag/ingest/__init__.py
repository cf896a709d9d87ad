"""Ingestion against a straightforward LangChain and qdrant-client pipeline."""
