"""Alembic's migrations of the store; `serving.store.migrating` applies them."""
