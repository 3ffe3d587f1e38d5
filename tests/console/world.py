"""What the pages are looked at with: centres with agents that keep data, a declared network, work that ran, runs, waits and moves data."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from tests.data.centres import Centres

NETWORK = {
    "nodes": [
        {"name": "local", "kind": "site", "address": "10.65.1.1", "longitude": 114.9, "latitude": 40.8},
        {"name": "beta", "kind": "site", "address": "10.65.2.1", "longitude": 106.6, "latitude": 29.6},
        {"name": "gamma", "kind": "site", "address": "10.65.3.1", "longitude": 119.3, "latitude": 31.2},
        {"name": "r1", "kind": "router", "longitude": 113.6, "latitude": 36.7},
        {"name": "r2", "kind": "router", "longitude": 109.5, "latitude": 33.3},
    ],
    "links": [
        {"name": "local-r1", "ends": ["local", "r1"], "capacity_bits_per_second": 1e10, "delay_seconds": 0.004},
        {"name": "r1-r2", "ends": ["r1", "r2"], "capacity_bits_per_second": 1e9, "delay_seconds": 0.006},
        {"name": "r2-beta", "ends": ["r2", "beta"], "capacity_bits_per_second": 2e6, "delay_seconds": 0.005},
        {"name": "gamma-r1", "ends": ["gamma", "r1"], "capacity_bits_per_second": 1e9, "delay_seconds": 0.007},
        {"name": "local-beta", "ends": ["local", "beta"], "capacity_bits_per_second": 2e6, "delay_seconds": 0.03},
    ],
}
BASEMAP = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 40"><rect width="60" height="40" fill="#cfe0ea"/>
<path d="M4 6 22 2 40 5 54 14 50 30 34 37 15 33 6 20z" fill="#e6ead9" stroke="#b9c2a4" stroke-width=".4"/>
<script>window.top.pwned = 1</script></svg>"""
EDGES = {"west": 80.0, "south": 15.0, "east": 140.0, "north": 55.0}
DATA_BYTES = 24 * 1024**2  # at 2 Mbit/s it moves for as long as the tests look


def start(centres: Centres, client: httpx.Client) -> None:
    """This machine as a site, two centres behind agents that keep data."""
    root = centres.directory / "local"
    root.mkdir()
    local = {"name": "local", "kind": "local", "config": {"root": str(root)}, "accounts": {"*": ""}}
    assert client.post("/v1/sites", json=local).status_code == 201
    centres.join("beta", region="west")
    centres.join("gamma", region="south")


def furnish(centres: Centres, client: httpx.Client) -> dict[str, str]:
    """Prices, a network with a basemap, datasets, tasks of each kind; the ids of the tasks."""
    for site, price, carbon in (("local", "0.02", "560"), ("beta", "0.01", "90"), ("gamma", "0.03", "410")):
        prices = {"*": {"cpu_hour": price, "cpu_watts": "6", "pue": "1.2", "carbon_grams_per_kwh": carbon}}
        _good(client.patch(f"/v1/sites/{site}", json={"prices": prices}))
    _good(client.patch("/v1/sites/local", json={"region": "north", "accounts": {"*": "", "lin": "lin01"}}))
    (centres.state / "basemap.svg").write_text(BASEMAP)
    (centres.state / "basemap.json").write_text(
        json.dumps({"picture": "basemap.svg", **EDGES, "credit": "Drawn by hand for this page"})
    )
    _good(client.put("/v1/network", json=NETWORK))
    ice = centres.put("default/ice", {"core.csv": b"depth,age\n1,40\n", "README": b"Two cores, drilled by hand.\n"})
    era = centres.put("default/era5", {"t2m.nc": b"e" * DATA_BYTES})
    for ref in (ice, era):
        centres.copy(ref, "gamma")
    gone = client.delete(
        "/v1/datasets/default/era5", params={"site": "@service"}
    )  # so that it must come over the network
    assert gone.status_code == 204, gone.text
    _until(client, "beta", "gamma")

    def submit(**spec: Any) -> str:
        return str(_good(client.post("/v1/tasks", json=spec))["id"])

    at_local = {"constraints": {"sites_allow": ["local"]}}
    script = "for i in 1 2 3; do echo epoch $i loss 0.$((9 - i)); done; wc -l < core.csv > answer.txt"
    ids = {
        "good": submit(
            name="grid search, best of four",
            command=["sh", "-c", script],
            inputs=[{"path": "core.csv", "data": "default/ice@1:core.csv"}, {"path": "rate", "content": "0.1"}],
            outputs=[{"path": "answer.txt"}],
            tags={"study": "ice"},
            **at_local,
        ),
        "maker": submit(
            name="means of the core",
            command=["sh", "-c", "mkdir out && sort core.csv > out/means.csv"],
            inputs=[{"path": "core.csv", "data": "default/ice@1:core.csv"}],
            outputs=[{"path": "out/means.csv", "data": "default/means"}],
            **at_local,
        ),
        "bad": submit(name="diverges", command=["sh", "-c", "echo no >&2; exit 3"], max_attempts=1, **at_local),
        "stuck": submit(name="wants too much", command=["true"], demand={"cpus": 100_000}),
        "held": submit(name="waits for release", command=["true"], hold=True),
        "moves": submit(
            name="reanalysis at beta",
            command=["sh", "-c", "ls -l era5"],
            inputs=[{"path": "era5", "data": "default/era5"}],
            demand={"walltime_seconds": 600},
            constraints={"sites_allow": ["beta"]},
        ),
    }
    for name in ("good", "maker", "bad"):
        ended(client, ids[name])
    return ids


def ended(client: httpx.Client, task: str, seconds: float = 60.0) -> dict[str, Any]:
    """The task once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = client.get(f"/v1/tasks/{task}").json()
        if found["state"] in ("succeeded", "failed", "cancelled"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def _until(client: httpx.Client, *sites: str) -> None:
    """Wait until the sites have been seen to have pools."""
    deadline = time.monotonic() + 60.0
    while not all(client.get(f"/v1/sites/{site}").json()["pools"] for site in sites):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _good(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


def client_of(centres: Centres, **options: Any) -> httpx.Client:
    """A client with the administrator's token."""
    token = (centres.state / "admin-token").read_text().strip()
    url = f"http://127.0.0.1:{centres.port}"
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0, **options)
