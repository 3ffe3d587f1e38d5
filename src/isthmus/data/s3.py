"""Content at addresses of the form `s3://BUCKET/KEY`: signed for a while, listed, and put there.

The account is the operator's, in a file of mode 0600:
`{"endpoint_url": "https://...", "access_key": "...", "secret_key": "...", "region": "..."}`; without `endpoint_url`
it is the one that the region implies.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Corrupt, Invalid, Refused, Unavailable
from isthmus.domain.manifest import MAX_FILES

SIGNED_SECONDS: Final = 12 * 3600  # a site may take long to come to a file
SMALL_BYTES: Final = 16 * 1024**2  # up to this in one call, beyond it in parts
MAX_PARTS: Final = 9_000
_MARK: Final = "isthmus-sha256"
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Account:
    """Whose storage it is and where; `endpoint_url` empty: the region's own."""

    endpoint_url: str = ""
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


def read_account(path: Path) -> S3Account | None:
    """The account in a file; None when there is no file, Refused when others can read it or it is not right."""
    try:
        mode = path.stat().st_mode
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}.", remedy="Write it as JSON.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Refused(f"{path} can be read by others and holds a secret.", remedy=f"chmod 600 {path}")
    if not isinstance(body, dict):
        raise Refused(f"{path} is not a JSON object.", remedy="See the page on GA4GH TES.")
    known = {name: body[name] for name in ("endpoint_url", "access_key", "secret_key", "region") if name in body}
    extra = body.keys() - known.keys()
    if extra or not all(isinstance(value, str) for value in known.values()):
        raise Refused(
            f"{path} does not hold what it should.", remedy="Give endpoint_url, access_key, secret_key, region."
        )
    if not known.get("access_key") or not known.get("secret_key"):
        raise Refused(f"{path} names no account.", remedy="Give access_key and secret_key.")
    return S3Account(**known)


def split(url: str) -> tuple[str, str]:
    """Bucket and key of an address; Invalid when it has none."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise Invalid("url", f"{url[:200]!r} is no s3:// address.", remedy="Write s3://BUCKET/KEY.")
    return bucket, key


class S3:
    """One account. Signing is local and quick; everything else goes over the network in a thread."""

    def __init__(self, account: S3Account) -> None:
        self._account = account
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            import boto3  # a third of a second that only an operator with an S3 account pays
            from botocore.config import Config

            self._made = boto3.client(
                "s3",
                endpoint_url=self._account.endpoint_url or None,
                aws_access_key_id=self._account.access_key,
                aws_secret_access_key=self._account.secret_key,
                region_name=self._account.region,
                config=Config(
                    signature_version="s3v4",
                    connect_timeout=10,
                    read_timeout=120,
                    retries={"mode": "standard", "total_max_attempts": 3},
                    s3={"addressing_style": "path" if self._account.endpoint_url else "auto"},
                    # Stores other than Amazon's own refuse the newer checksums; contents are checked by SHA-256 here.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._made

    def close(self) -> None:
        """Let go of connections."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def __call__(self, url: str, method: str) -> str:
        """The address that works for `SIGNED_SECONDS` without credentials (engine.jobs.Presigner)."""
        bucket, key = split(url)
        if not key:
            raise Invalid("url", f"{url!r} names no object.", remedy="Write s3://BUCKET/KEY.")
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        with _told(url):
            signed: str = self._client.generate_presigned_url(
                operation, Params={"Bucket": bucket, "Key": key}, ExpiresIn=SIGNED_SECONDS, HttpMethod=method
            )
        return signed

    async def below(self, url: str) -> list[tuple[str, str]]:
        """Every object below an address that stands for a directory, as (path relative to it, s3:// address), sorted;
        Refused when there is none or too many, Unavailable when the store does not answer."""
        bucket, key = split(url)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""

        def walk() -> list[str]:
            found: list[str] = []
            with _told(url):
                for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                    found += [item["Key"] for item in page.get("Contents", ())]
                    if len(found) > MAX_FILES:
                        raise Refused(f"{url} holds more than {MAX_FILES} objects.", remedy="Name a smaller directory.")
            return found

        keys = [name for name in await asyncio.to_thread(walk) if not name.endswith("/")]
        if not keys:
            raise Refused(f"There is nothing below {url}.", remedy="Check the address.")
        return sorted((name[len(prefix) :], f"s3://{bucket}/{name}") for name in keys)

    async def put(self, blobs: BlobStore, sha256: str, url: str) -> None:
        """Put a blob at an address, whole or not at all; nothing happens when it is there already. Refused when that can
        never work, Unavailable when it may later, Corrupt when the stored content is not what its hash says."""
        bucket, key = split(url)
        if not key or key.endswith("/"):
            raise Refused(f"{url} names no object.", remedy="Write s3://BUCKET/KEY.")
        size = await blobs.size(sha256)
        if await asyncio.to_thread(self._has, bucket, key, sha256, size):
            return
        target = {"Bucket": bucket, "Key": key}
        if size <= SMALL_BYTES:
            content = b"".join([chunk async for chunk in blobs.read(sha256)])
            if hashlib.sha256(content).hexdigest() != sha256:
                raise Corrupt(f"Stored content {sha256} is damaged.")
            await self._do(url, "put_object", **target, Body=content, Metadata={_MARK: sha256})
        else:
            await self._put_parts(blobs, sha256, size, url, target)

    async def _put_parts(self, blobs: BlobStore, sha256: str, size: int, url: str, target: dict[str, str]) -> None:
        begun = await self._do(url, "create_multipart_upload", **target, Metadata={_MARK: sha256})
        upload = {**target, "UploadId": begun["UploadId"]}
        try:
            digest = hashlib.sha256()
            parts: list[dict[str, Any]] = []
            async for part in _parts(blobs, sha256, max(SMALL_BYTES, -(-size // MAX_PARTS))):
                digest.update(part)
                number = len(parts) + 1
                sent = await self._do(url, "upload_part", **upload, PartNumber=number, Body=part)
                parts.append({"ETag": sent["ETag"], "PartNumber": number})
            if digest.hexdigest() != sha256:
                raise Corrupt(f"Stored content {sha256} is damaged.")
            await self._do(url, "complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except BaseException:
            await asyncio.shield(self._abort(url, upload))
            raise

    async def _abort(self, url: str, upload: dict[str, str]) -> None:
        try:
            await self._do(url, "abort_multipart_upload", **upload)
        except (Refused, Unavailable):
            return  # the store's own rules remove unfinished uploads

    def _has(self, bucket: str, key: str, sha256: str, size: int) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            head = self._client.head_object(Bucket=bucket, Key=key)
        except (ClientError, BotoCoreError):
            return False  # whatever is wrong, the put will say it
        return bool(head.get("Metadata", {}).get(_MARK) == sha256 and head.get("ContentLength") == size)

    async def _do(self, url: str, operation: str, **arguments: Any) -> Any:
        def call() -> Any:
            with _told(url):
                return getattr(self._client, operation)(**arguments)

        return await asyncio.to_thread(call)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """The store's errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        if status in _PASSING or code in ("SlowDown", "RequestTimeout"):
            raise Unavailable(f"The store of {url} does not answer now: {code or status}.") from None
        raise Refused(f"The store of {url} said no: {code or status}.", remedy="Check bucket and account.") from None
    except ParamValidationError:
        raise Refused(f"{url} is not an address that S3 can have.", remedy="Write s3://BUCKET/KEY.") from None
    except BotoCoreError as error:
        raise Unavailable(f"The store of {url} does not answer: {type(error).__name__}.") from None


async def _parts(blobs: BlobStore, sha256: str, size_bytes: int) -> AsyncIterator[bytes]:
    held = bytearray()
    async for chunk in blobs.read(sha256):
        held += chunk
        while len(held) >= size_bytes:
            yield bytes(held[:size_bytes])
            del held[:size_bytes]
    if held:
        yield bytes(held)
