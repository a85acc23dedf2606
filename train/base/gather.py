#!/usr/bin/env python3
"""Copies what a base model learns from into one package: `gather.py OUT`, and then in OUT
`cargo nanochat train --recipe base`.

Fetches the packages that the Cargo.lock next to this file names. Left out are the crates of eval/suites/heldout.toml and their
families (one repository, or a name that starts with theirs), bindings, all but the newest version of a crate, and of each
crate files of more than 200 kB and what is beyond 350 kB in all: a large crate shall not outvote small ones. Python 3.11.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
MAX_FILE = 200_000
MAX_PACKAGE = 350_000
BINDINGS = ("windows", "winapi", "objc2", "icu_")


def locked(folder):
    """The packages of a lock file. Cargo wants code next to its manifest, which has none."""
    with tempfile.TemporaryDirectory() as copy:
        copy = pathlib.Path(copy)
        for name in ["Cargo.toml", "Cargo.lock"]:
            shutil.copyfile(folder / name, copy / name)
        (copy / "src").mkdir()
        (copy / "src" / "lib.rs").touch()
        command = ["cargo", "metadata", "--locked", "--format-version", "1"]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=copy)
        return json.loads(found.stdout)["packages"]


def repository(package):
    """As all write it the same."""
    url = package.get("repository")
    url = url.lower() if isinstance(url, str) else ""
    return re.sub(r"(/tree/.*|\.git)?/*$", "", url).replace("http://", "https://").replace("www.", "")


def version(package):
    return [int(part) if part.isdigit() else 0 for part in re.split(r"[.+-]", package["version"])[:3]]


def main():
    out = pathlib.Path(sys.argv[1])
    packages = locked(HERE)
    suites = HERE.parents[1] / "eval" / "suites"
    lists = tomllib.loads((suites / "heldout.toml").read_text())
    held_out = set(lists["develop"] + lists["ranking"] + lists["report"])
    of_suites = [package for suite in ["develop", "ranking", "crates"] for package in locked(suites / suite)]
    repositories = {repository(package) for package in of_suites if package["name"] in held_out} - {""}

    def is_held_out(package):
        family = any(re.match(re.escape(name) + r"($|[-_])", package["name"]) for name in held_out)
        return family or repository(package) in repositories

    newest = {}
    for package in filter(lambda package: package["source"] and not is_held_out(package), packages):
        name = package["name"]
        if name.endswith("-sys") or name.startswith(BINDINGS) or "bindings" in name:
            continue
        if name not in newest or version(package) > version(newest[name]):
            newest[name] = package
    n_bytes = 0
    for package in newest.values():
        root = pathlib.Path(package["manifest_path"]).parent
        room = MAX_PACKAGE
        for path in sorted(root.rglob("*.rs")):
            size = path.stat().st_size
            if size > min(MAX_FILE, room):
                continue
            room -= size
            to = out / root.name / path.relative_to(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        n_bytes += MAX_PACKAGE - room
    (out / "src").mkdir(parents=True, exist_ok=True)
    (out / "src" / "lib.rs").write_text("//! What a base model learns from.\n")
    manifest = '[package]\nname = "base"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n'
    (out / "Cargo.toml").write_text(manifest)
    print(f"{len(newest)} packages, {n_bytes / 1e6:.0f} MB in {out}")


if __name__ == "__main__":
    main()
