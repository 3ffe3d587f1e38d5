"""Brings a store to the tables that this version needs, in one transaction, and says what differs.

`python -m isthmus.store.schema MESSAGE` writes a new step from the difference between `tables` and the last step.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from isthmus.domain.errors import Refused
from isthmus.store import tables
from isthmus.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x697374686D7574  # one process migrates at a time


def head() -> str:
    """The newest step that this version knows: the file with the highest number."""
    return _steps()[-1]


def _steps() -> list[str]:
    return sorted(path.stem.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def prepare(database: Database) -> None:
    """Make or migrate the tables; safe at every start and from several processes; Refused for another version's store."""
    database.write_now(_prepare)


def differences(database: Database) -> list[str]:
    """In words what differs between the store's tables and this version's; empty when they are the same."""
    found = database.read_now(current)
    if found != head():
        return [f"is at step {found or '(none)'}, this version needs step {head()}."]
    return database.read_now(_compare)


def current(connection: sa.Connection) -> str:
    """The step that the store is at; empty for a new one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or ""


def _prepare(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = current(connection)
    known = _steps()
    if found and found not in known:
        raise Refused(
            f"The store was made by another version: it is at step {found}, this one knows {known[0]} to {known[-1]}.",
            remedy="Start the version that made it, restore a backup of this version's, or give another --state.",
        )
    others = _lacking(connection)
    if not found and len(others) < len(tables.metadata.tables):
        raise Refused(
            "The store holds tables that Isthmus did not make.", remedy="Give another --state, or an empty --database."
        )
    if found == head():
        if others:
            raise Refused(
                f"The store was made by another version of step {found}: {'; '.join(others)}.",
                remedy="Start the version that made it, or give another --state.",
            )
        return
    from alembic import command

    command.upgrade(_config(connection), "head")


def _lacking(connection: sa.Connection) -> list[str]:
    """In words the tables and columns that this version needs and the store does not have."""
    found: dict[str, set[str]] = {}
    for (_schema, name), columns in sa.inspect(connection).get_multi_columns().items():
        found[str(name)] = {column["name"] for column in columns}
    lacking = []
    for name, table in tables.metadata.tables.items():
        missing = {column.name for column in table.columns} - found.get(name, set())
        if name not in found:
            lacking.append(f"there is no table {name}")
        elif missing:
            lacking.append(f"{name} has no {', '.join(sorted(missing))}")
    return lacking


def _config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _compare(connection: sa.Connection) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection)
    return [f"differs: {change}." for change in compare_metadata(context, tables.metadata)]


def _write_step(message: str) -> None:
    """Write the next numbered step, by comparing the tables with a store at the last step."""
    from alembic import command

    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/empty.db")
        number = f"{int(head()) + 1:04d}" if any((_MIGRATIONS / "versions").glob("[0-9]*.py")) else "0001"
        with database.engine.connect() as connection, connection.begin():
            config = _config(connection)
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
            if number != "0001":
                command.upgrade(config, "head")
            command.revision(config, message, autogenerate=True, rev_id=number)
        database.close()


if __name__ == "__main__":
    _write_step(sys.argv[1])
