"""Retrieval: load → split → embed → index → retrieve → cite.

A library and a command of its own. It imports no ray and nothing of serving; what it needs of a
model it asks of the protocols in `rag/protocols.py`, which serving adapts its replicas to.
"""
