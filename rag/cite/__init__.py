"""Answers from passages, every citation checked."""
