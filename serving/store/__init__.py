"""What corral remembers: tenants, keys, limits, the ledger, blobs. Imports no ray, torch or vllm.

This module imports nothing, so that `serving.store.secret` stays cheap for every command.
"""
