"""Hostile requests by the hundred thousand: schemathesis over a stack's own OpenAPI document."""
