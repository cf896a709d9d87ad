"""Fine-tuning of adapters: data → train → evaluate → export.

A library and a command of its own; it knows nothing of serving. So far the data side is here.
"""
