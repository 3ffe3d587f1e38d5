"""Tables, migrations and transactions, on SQLite (embedded) or PostgreSQL (at scale); owns rows, decides nothing, never imports engine or api."""
