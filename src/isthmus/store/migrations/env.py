"""What alembic runs: `schema.prepare` hands over an open transaction in `attributes["connection"]`."""

from __future__ import annotations

from alembic import context

from isthmus.store import tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=tables.metadata,
    transactional_ddl=False,  # the caller holds one transaction around all steps: a kill leaves the old shape whole
    render_as_batch=True,
)
context.run_migrations()
