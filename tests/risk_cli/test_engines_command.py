"""`risk engines`, here and at a server."""

from __future__ import annotations

import csv
import io
import json

from desk_files import run

import gpu_kernels as gk


def test_engines_of_this_machine() -> None:
    answer = json.loads(run("engines", "--json").stdout)
    assert answer["serving"] == gk.engine("auto").name
    there = {one["name"] for one in answer["engines"] if one["available"]}
    assert {"reference", answer["serving"]} <= there
    assert all(one["available"] or one["reason"] for one in answer["engines"])
    rows = list(csv.DictReader(io.StringIO(run("engines", "--csv").stdout)))
    assert [row["name"] for row in rows] == [one["name"] for one in answer["engines"]]
    assert "reference" in run("engines").stdout


def test_engines_of_a_server(address: str) -> None:
    answer = json.loads(run("engines", "--server", address, "--json").stdout)
    assert answer["serving"] in {one["name"] for one in answer["engines"] if one["available"]}


def test_no_server_is_one_line() -> None:
    done = run("engines", "--server", "127.0.0.1:1")
    assert (done.exit_code, done.stderr.count("\n"), "127.0.0.1:1" in done.stderr) == (1, 1, True)
