"""Steps from one shape of the tables to the next (alembic); a step once released never changes."""
