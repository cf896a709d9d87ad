"""load → split → embed → upsert, idempotent, with a ledger that survives a kill."""
