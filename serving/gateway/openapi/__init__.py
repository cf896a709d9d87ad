"""The OpenAPI document at /openapi.json and the page at /docs that shows it.

engine_fields.json  vLLM's request fields, written by `scripts/openapi.py`
components.py       what nests: messages, tools, schemas; and the answers
document.py         puts them together with FastAPI's routes
page.py             /docs, /openapi.json: HTML, script and style of its own, nothing from elsewhere
"""
