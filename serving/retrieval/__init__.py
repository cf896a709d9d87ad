"""Vector stores in the stack: files become passages that can be searched.

`rag` parses, splits, indexes and searches, and knows nothing of this; this feeds it uploaded files,
embeds by the stack's own replicas, and keeps every tenant's passages apart.
"""
