"""Retrieval and answers measured on labelled sets."""
