"""`isthmus check`: opens a store, checks every invariant of rows and contents, prints what is broken and what to do.

`python -m isthmus.checking --state DIR [--database URL] [--content] [--json]`; exits 0 when all holds, 1 when not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Corrupt, IsthmusError
from isthmus.engine.checking import Finding, check, contents
from isthmus.store import schema
from isthmus.store.database import Database
from isthmus.trust.sealing import Sealer


def run(state: Path, url: str, *, content: bool) -> list[Finding]:
    """Every finding; `content` also reads every blob and compares its hash."""
    database = Database(url)
    try:
        findings = [
            Finding(
                code="schema",
                subject="the store",
                wrong=wrong,
                remedy="Start `isthmus up` once; it migrates or says why not.",
            )
            for wrong in schema.differences(database)
        ]
        if findings:
            return findings
        key = state / "key"
        unseal = Sealer.open(key).unseal if key.exists() else None
        findings = database.read_now(lambda connection: list(check(connection, unseal)))
        named = database.read_now(lambda connection: list(contents(connection)))
        return findings + asyncio.run(_check_contents(DirectoryBlobStore(state / "blobs"), named, read=content))
    finally:
        database.close()


async def _check_contents(blobs: DirectoryBlobStore, named: list[str], *, read: bool) -> list[Finding]:
    absent = await blobs.missing(named)
    findings = [
        Finding(
            code="content_missing",
            subject=f"content {sha256}",
            wrong="is named by a row, but not in the blob store.",
            remedy="Restore STATE/blobs from your backup; who has the file can upload it again.",
        )
        for sha256 in sorted(absent)
    ]
    if read:
        findings += [
            Finding(
                code="content_corrupt",
                subject=f"content {sha256}",
                wrong="does not match its hash.",
                remedy="Restore it from your backup, or remove the file and upload it again.",
            )
            for sha256 in await blobs.verify()
        ]
    return findings


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="isthmus check", description="Check every invariant of the store.")
    parser.add_argument("--state", type=Path, required=True, help="the state directory of the service")
    parser.add_argument("--database", help="the store, if it is not the SQLite file in the state directory")
    parser.add_argument("--content", action="store_true", help="also read every content and compare its hash")
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    options = parser.parse_args(arguments)
    url = options.database or f"sqlite:///{options.state / 'isthmus.db'}"
    if options.database is None and not (options.state / "isthmus.db").exists():
        print(f"There is no store in {options.state}. Give --state or --database.", file=sys.stderr)
        return 64
    try:
        findings = run(options.state, url, content=options.content)
    except (IsthmusError, Corrupt, sa.exc.SQLAlchemyError) as error:
        print(f"The store cannot be read: {error}", file=sys.stderr)
        return 69
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.code}: {finding.subject} {finding.wrong}\n    {finding.remedy}")
        print(f"{len(findings)} findings." if findings else "Every invariant holds.", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
