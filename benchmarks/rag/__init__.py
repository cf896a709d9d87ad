"""Retrieval measured on labelled sets: quality, latency, isolation of tenants."""
