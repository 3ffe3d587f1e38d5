"""Writers of results: the twin's other edge, which writes waits as CSV, schedules as SWF, tables as Parquet."""

from isthmus.twin.writers.results import write_parquet, write_schedule, write_text, write_waits

__all__ = ["write_parquet", "write_schedule", "write_text", "write_waits"]
