"""The reader of the Standard Workload Format takes what is right and names what is not."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from isthmus.domain.errors import Invalid
from isthmus.twin.readers import parse_swf, read_swf
from isthmus.twin.readers.swf import write_swf

GOOD = "7 10 -1 60 4 1.5 -1 4 100 -1 1 3 -1 -1 -1 -1 -1 -1"
TEXT = f"; MaxProcs: 100\n;\n; Note: a: b\n\n{GOOD}\n"


def test_a_line_becomes_one_entry_in_each_column() -> None:
    """The fields land in their columns, whole or not as the format says; the header is kept."""
    log = parse_swf(TEXT.splitlines())
    assert len(log) == 1
    assert log.header == {"MaxProcs": "100", "Note": "a: b"}
    assert (log.job_id[0], log.submit_seconds[0], log.run_seconds[0], log.requested_seconds[0]) == (7, 10, 60, 100)
    assert (log.average_cpu_seconds[0], log.user[0], log.think_seconds[0]) == (1.5, 3, -1)
    assert log.bad_lines == ()


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("1 2 3", "3 fields, not 18"),
        (GOOD + " 5", "19 fields, not 18"),
        (GOOD.replace("60", "sixty"), "could not convert string to float: 'sixty'"),
        (GOOD.replace("60", "60.5"), "run_seconds is 60.5, not a whole number"),
        (GOOD.replace("1.5", "nan"), "average_cpu_seconds is nan, not a finite number"),
        (GOOD.replace("60", "1e300"), "run_seconds is 1e300, not a whole number"),
    ],
)
def test_a_bad_line_is_named_and_left_out(line: str, cause: str) -> None:
    """A line that is not what the format says is never guessed at."""
    log = parse_swf([GOOD, line, GOOD])
    assert len(log) == 2
    [bad] = log.bad_lines
    assert (bad.number, bad.cause) == (2, cause)


def test_plain_gzip_and_zip_read_alike(tmp_path: Path) -> None:
    """The three forms in which archives hand out logs give the same jobs."""
    (tmp_path / "a.swf").write_text(TEXT)
    (tmp_path / "a.swf.gz").write_bytes(gzip.compress(TEXT.encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.swf", TEXT)
    for name in ("a.swf", "a.swf.gz", "a.zip"):
        assert read_swf(tmp_path / name).job_id.tolist() == [7]


def test_a_zip_of_two_logs_is_refused(tmp_path: Path) -> None:
    """Which of two logs is meant cannot be known."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.swf", TEXT)
        archive.writestr("b.swf", TEXT)
    with pytest.raises(Invalid, match="holds 2 files"):
        read_swf(tmp_path / "a.zip")


def test_what_is_written_reads_back() -> None:
    """Writing and reading again gives the same columns and header."""
    log = parse_swf(TEXT.splitlines())
    again = parse_swf(write_swf(log).splitlines())
    assert write_swf(again) == write_swf(log)
    assert again.header == log.header


def test_real_logs_have_no_bad_lines(traces: Path) -> None:
    """A zipped log of the Parallel Workloads Archive reads in full."""
    log = read_swf(traces / "pwa" / "NASA-iPSC-1993-3.1-cln.swf.zip")
    assert (len(log), log.bad_lines, log.header["MaxProcs"]) == (18_239, (), "128")
