"""Builds the web page into the package; `--check` says whether what lies there is what the sources give.

python frontend/build.py            needs Node 20 and npm
python frontend/build.py --check    without npm it compares hashes only, and says so; with ISTHMUS_CI=1 that is a failure
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src" / "isthmus" / "console"
STATIC = PACKAGE / "static"
STAMP = PACKAGE / "sources.sha256"
INPUTS = ("index.html", "package.json", "package-lock.json", "svelte.config.js", "tsconfig.json", "vite.config.ts")
MADE = "src/api/schema.d.ts"
PACK = (
    "const fs=require('fs'),z=require('zlib');for(const f of process.argv.slice(1))"
    "fs.writeFileSync(f+'.br',z.brotliCompressSync(fs.readFileSync(f),{params:{[z.constants.BROTLI_PARAM_QUALITY]:11}}))"
)
UNPACK = (
    "const fs=require('fs'),z=require('zlib');for(const f of process.argv.slice(1))"
    "if(!z.brotliDecompressSync(fs.readFileSync(f+'.br')).equals(fs.readFileSync(f))){console.error(f);process.exit(1)}"
)


def sources_hash() -> str:
    """The hash of all that the page is made from; the types made from the OpenAPI document leave no trace in it."""
    digest = hashlib.sha256()
    names = [HERE / name for name in INPUTS] + [path for path in (HERE / "src").rglob("*") if path.is_file()]
    for path in sorted(names):
        name = path.relative_to(HERE).as_posix()
        if name != MADE:
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def stamp() -> str:
    """The hash of the sources, and that of what was built from them."""
    digest = hashlib.sha256()
    for name, content in files_of(STATIC).items():
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return f"{sources_hash()}\n{digest.hexdigest()}\n"


def files_of(directory: Path) -> dict[str, bytes]:
    """The built files by name, without their packed forms."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".br"
    }


def install() -> bool:
    """Bring the packages of the lock file; whether they are there."""
    marker, wanted = (
        HERE / "node_modules" / ".lock-hash",
        hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest(),
    )
    if marker.exists() and marker.read_text() == wanted:
        return True
    if subprocess.run(["npm", "ci", "--no-progress", "--loglevel", "error"], cwd=HERE, check=False).returncode:
        return False
    marker.write_text(wanted)
    return True


def build(target: Path) -> None:
    """Types from the OpenAPI document, the check of all types, the page."""
    document = subprocess.run(
        [sys.executable, "-m", "isthmus.api.openapi"],
        cwd=HERE.parent,
        env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")},
        stdout=subprocess.PIPE,
        check=True,
    )
    (HERE / "openapi.json").write_bytes(document.stdout)
    for script in ("types", "check", "build"):
        subprocess.run(
            ["npm", "run", "--silent", script],
            cwd=HERE,
            env=os.environ | {"CONSOLE_OUT": str(target), "NO_COLOR": "1"},
            stdout=subprocess.DEVNULL if script == "types" else None,
            check=True,
        )


def main(argv: list[str]) -> int:
    """0 when what lies in the package is what the sources give."""
    if argv == ["--check"]:
        if not STAMP.exists() or STAMP.read_text() != stamp():
            print("The built console is not of these sources: run python frontend/build.py.", file=sys.stderr)
            return 1
        if shutil.which("npm") is None or not install():
            print("console: the hashes are right; not built again (no npm, or no packages)")
            return int(os.environ.get("ISTHMUS_CI") == "1")
        with tempfile.TemporaryDirectory() as fresh:
            build(Path(fresh))
            if files_of(Path(fresh)) != files_of(STATIC):
                print("The built console is not what its sources give: run python frontend/build.py.", file=sys.stderr)
                return 1
        subprocess.run(["node", "-e", UNPACK, *packed(STATIC)], check=True)
        print("console: the built files are what the sources give")
        return 0
    if not install():
        return 1
    build(STATIC)
    subprocess.run(["node", "-e", PACK, *packed(STATIC)], check=True)
    STAMP.write_text(stamp())
    return 0


def packed(directory: Path) -> list[str]:
    """The files that have a packed form."""
    return [str(directory / name) for name in files_of(directory)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
