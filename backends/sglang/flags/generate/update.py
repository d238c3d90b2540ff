#!/usr/bin/env python3
"""Brings the releases from the Python package index into a temporary folder, makes ../options.json, and checks it."""
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

VERSIONS = ("0.5.2", "0.5.7", "0.5.12", "0.5.15", "0.5.17", "0.5.23")
HERE = pathlib.Path(__file__).parent

with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for version in VERSIONS:
        subprocess.run([*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", folder, f"sglang=={version}"], check=True)
    wheels = sorted(str(p) for p in folder.glob("*.whl"))
    subprocess.run([sys.executable, HERE / "table.py", *wheels], check=True)
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(folder / "unpacked" / pathlib.Path(wheel).name.split("-")[1])
    subprocess.run([*pip, "install", "--target", folder / "packages", "msgspec"], check=True)
    subprocess.run([sys.executable, HERE / "oracle.py", folder / "unpacked"], check=True,
                   env={**os.environ, "PYTHONPATH": str(folder / "packages")})
