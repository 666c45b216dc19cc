"""The notebook runs top to bottom: under nbclient where a kernel is installed, else in a plain Python."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TOUR = NOTEBOOKS / "desk_tour.ipynb"
PATIENCE_S = 200

# What a kernel does, without one: each cell in the same namespace, the last expression shown.
RUNNER = """
import ast, sys, nbformat
names = {"__name__": "__main__"}
for number, cell in enumerate(nbformat.read(sys.argv[1], as_version=4).cells):
    if cell.cell_type != "code":
        continue
    tree = ast.parse(cell.source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    if last is not None:
        print(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names))
import matplotlib.pyplot as plt
print("figures", len(plt.get_fignums()))
"""


def run_by_nbclient() -> tuple[str, str]:
    """All that the cells print and show, and the page made of it; raises with the cell that fails."""
    from notebooks.run import page, run

    notebook = run(TOUR, PATIENCE_S)
    texts, figures = [], 0
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            figures += "image/png" in data
            texts.append(output.get("text") or data.get("text/plain", ""))
    return "\n".join([*texts, f"figures {figures}"]), page(notebook)


def run_plainly() -> str:
    """The same without a kernel."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", "-c", RUNNER, str(TOUR)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def tour() -> tuple[str, str]:
    return run_by_nbclient() if importlib.util.find_spec("ipykernel") else (run_plainly(), "")


@pytest.fixture(scope="module")
def printed(tour: tuple[str, str]) -> str:
    return tour[0]


def number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in\n{text}"
    return float(found.group(1).replace(",", ""))


def test_the_tour_runs_and_its_numbers_make_sense(printed: str) -> None:
    assert number(printed, r"figures (\d+)") == 4
    assert number(printed, r"within ([\d.]+) of the one") < 0.005
    var, es = number(printed, r"VaR ([\d,]+)"), number(printed, r"ES ([\d,]+) ±")
    assert 0 < var < es
    after_delta = number(printed, r"ES [\d,]+ -> ([\d,]+)")
    best = number(printed, r"cost [\d,]+\nES [\d,]+ -> ([\d,]+)")
    # The least ES that futures and puts can reach is no more than what futures alone reached.
    assert best < min(es, after_delta)
    assert "'ABOVE_MAXIMUM': 1" in printed
    assert "2008-10" in printed
    assert "short strangles" in printed


def test_the_tour_asks_a_live_service(printed: str) -> None:
    assert number(printed, r"difference to the kernels in this process: ([\d.e-]+)") == 0.0
    assert number(printed, r"(\d+) live numbers of 4 portfolios") > 0
    assert number(printed, r"ES ([\d,]+) from 500 past days") > 0
    assert number(printed, r"market snapshot 0:(\d+)") > 0
    assert all(f"desk-{place}" in printed for place in range(1, 5))


def test_the_page_is_whole(tour: tuple[str, str]) -> None:
    if not tour[1]:
        pytest.skip("there is no kernel for notebooks")
    assert tour[1].count("data:image/png;base64,") == 4
    assert tour[1].count("<h2>") == 9
    for outside in ("http:", "https:", "<script"):
        assert outside not in tour[1]


def test_notebooks_are_committed_without_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs"), f"{path.name}: clear the outputs before committing"
