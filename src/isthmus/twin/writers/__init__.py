"""Writers of results: the twin's other edge, which writes waits as CSV, schedules as SWF, tables as Parquet."""

from isthmus.twin.writers.results import parquet_rows, write_parquet, write_schedule, write_text, write_waits

__all__ = ["parquet_rows", "write_parquet", "write_schedule", "write_text", "write_waits"]
