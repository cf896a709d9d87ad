"""One process at a time: whoever holds a task renews it, and a silent holder loses it."""

from __future__ import annotations

from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError

from serving.store.database import Store
from serving.store.finetuning_tables import owners


class Ownership:
    """One process's claim on one task."""

    def __init__(self, store: Store, task: str, holder: str, lease_s: float) -> None:
        self._store = store
        self._task = task
        self._holder = holder
        self._lease_us = int(lease_s * 1e6)

    def hold(self) -> bool:
        """Take the task, or go on holding it. False where another holds it. StoreUnavailable."""
        now = self._store.now_us()
        free = (owners.c.holder == self._holder) | (owners.c.until_us < now)
        values = {"holder": self._holder, "until_us": now + self._lease_us}
        try:
            with self._store.write() as connection:
                taken = connection.execute(
                    update(owners).where(owners.c.task == self._task, free).values(values)
                )
                if taken.rowcount:
                    return True
                connection.execute(insert(owners).values(task=self._task, **values))
                return True
        except IntegrityError:
            return False

    def leave(self) -> None:
        """Let the next one have it at once."""
        with self._store.write() as connection:
            connection.execute(
                delete(owners).where(owners.c.task == self._task, owners.c.holder == self._holder)
            )
