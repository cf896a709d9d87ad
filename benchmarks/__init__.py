"""Measurements of a running stack: workload → client → statistics → report.

Everything talks HTTP in the OpenAI wire format; nothing here knows how a stack is built.
"""
