"""Runs the tour of a desk from top to bottom and writes it as a page with its results and plots.

    python notebooks/run.py [OUT.html]

Needs nothing but the extras of the notebook: pip install 'gpu-risk[service,dataframes,notebook]'.
"""

from __future__ import annotations

import html
import sys
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("desk_tour.ipynb")
PATIENCE_S = 300
STYLE = """
:root{color-scheme:light}body{margin:0 auto;max-width:900px;padding:24px;color:#1f2933;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
pre,code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:#f4f6f9;border-radius:6px;padding:12px;overflow-x:auto}
.out pre{background:none;border-left:3px solid #0072b2;border-radius:0;padding:2px 12px}
img{max-width:100%;height:auto}table{border-collapse:collapse;font-size:14px}
th,td{padding:4px 10px;border-bottom:1px solid #d8dee6;text-align:right}.out{overflow-x:auto}
"""


def run(path: Path = TOUR, patience_s: float = PATIENCE_S) -> Any:
    """The notebook with its results; raises with the cell that fails."""
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=patience_s, kernel_name="python3").execute()
    return notebook


def page(notebook: Any) -> str:
    """A run notebook as one page that needs no other file."""
    body = "".join(_cell(cell) for cell in notebook.cells)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A tour of a desk</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def _cell(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return str(MarkdownIt().enable("table").render(cell.source))
    shown = "".join(_output(output) for output in cell.outputs)
    return f"<pre>{html.escape(cell.source)}</pre>" + (f'<div class="out">{shown}</div>' if shown else "")


def _output(output: Any) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="plot" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return str(data["text/html"])
    return f"<pre>{html.escape(output.get('text') or data.get('text/plain', ''))}</pre>"


def main() -> int:
    """Runs and writes it."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("desk_tour.html")
    print(f"running {TOUR.name}: about a minute, longer the first time", file=sys.stderr)
    out.write_text(page(run()), encoding="utf-8")
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
