"""The sample desk's run and its report: whole, self-contained, and with the numbers of the run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_files import PORTFOLIO, SCENARIOS, run, stress, write

import gpu_kernels as gk
from risk_cli.answers import money
from risk_cli.stress import svg
from risk_cli.stress.book import arrange, at_market
from risk_cli.stress.command import SAMPLES
from risk_cli.stress.market_file import read_market
from risk_cli.stress.outcome import Usage
from risk_cli.stress.portfolio_file import read_portfolio
from risk_cli.stress.scenario_file import read_scenarios
from risk_cli.stress.wording import scenario_words

_VOID = {"meta"}
_CLOSED_SHAPES = {"rect", "line"}


@dataclass
class _Reader(HTMLParser):
    """Checks that every element is closed where it should be, and gathers what is there."""

    open: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.extend(attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _CLOSED_SHAPES
        self.tags.add(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The sample desk's JSON and report. Exercise is taken as European, which the reference does at once."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("desk.csv", "scenarios.toml", "history.csv"):
        shutil.copy(SAMPLES / name, folder)
    market = (SAMPLES / "market.toml").read_text()
    (folder / "market.toml").write_text(market.replace('exercise = "A"', 'exercise = "E"'))
    files = {
        "portfolio": str(folder / "desk.csv"),
        "scenarios": str(folder / "scenarios.toml"),
        "market": str(folder / "market.toml"),
    }
    out = folder / "report.html"
    result = stress(files, "--json", "--report", str(out))
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), out.read_text()


def test_the_sample_desk_can_be_read() -> None:
    market = read_market(SAMPLES / "market.toml")
    book = at_market(arrange(read_portfolio(SAMPLES / "desk.csv")), market)
    assert len(book.portfolio) == 205
    assert 0 < np.count_nonzero(book.portfolio.american) < book.portfolio.options
    assert read_scenarios(SAMPLES / "scenarios.toml").limits
    assert run("stress", "--sample", "--portfolio", str(SAMPLES / "desk.csv")).exit_code == 2


def test_the_report_is_whole_and_self_contained(sample: tuple[dict[str, Any], str]) -> None:
    reader = _read(sample[1])
    assert {"svg", "table", "section", "style"} <= reader.tags
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert not [name for name, _ in reader.attributes if name in ("src", "href", "srcset", "onload")]
    for outside in ("http:", "https:", "url(", "@import", "//"):
        assert outside not in sample[1].replace("<!DOCTYPE html>", "")


def test_the_report_says_in_short_what_matters(sample: tuple[dict[str, Any], str]) -> None:
    answer, page = sample
    text = " ".join(" ".join(_read(page).words).split())
    short = text[text.index("In short") :][:700]
    worst = min(answer["stress"], key=lambda one: one["pnl"])
    nearest = max(answer["limits"], key=lambda one: one["used"] / one["limit"])
    for part in (
        money(answer["distributions"][0]["tail"][0]["es"]),
        worst["name"],
        money(-worst["pnl"]),
        f"{nearest['used'] / nearest['limit']:.0%} is used",
    ):
        assert part in short


def test_a_dark_screen_has_light_ink(sample: tuple[dict[str, Any], str]) -> None:
    page = sample[1]
    assert "prefers-color-scheme:dark" in page
    named = set(re.findall(r"var\(--(\w+)\)", page))
    dark = page[page.index("prefers-color-scheme:dark") :].partition("}}")[0]
    assert all(f"--{name}:" in dark for name in named)
    # Ink has no colour of its own anywhere else.
    assert set(re.findall(r'fill="(#\w+)"', page)) <= {svg.BLUE, svg.ORANGE, "#ffffff"}


def test_the_report_has_the_numbers(sample: tuple[dict[str, Any], str]) -> None:
    answer, page = sample
    text = " ".join(_read(page).words)
    tail = answer["distributions"][0]["tail"][0]
    worst = min(answer["stress"], key=lambda one: one["pnl"])
    for number in (answer["value_today"], tail["var"], tail["es"], worst["pnl"]):
        assert money(number) in text
    for limit in answer["limits"]:
        assert money(limit["used"]) in text
        assert money(limit["limit"]) in text
    for words in (worst["name"], answer["made_with"]["engine"], answer["made_with"]["device"], "2026-10-29"):
        assert words in text
    for value in np.ravel(answer["ladders"][0]["pnl"]):
        assert svg.short(float(value)) in text
    parts = answer["distributions"][0]["component_es"]
    for value in (*parts["by_group"].values(), *parts["by_underlying"].values()):
        assert svg.short(value) in text
    assert sum(parts["by_underlying"].values()) == pytest.approx(tail["es"], rel=1e-9)


def test_scenarios_and_positions_are_in_words(sample: tuple[dict[str, Any], str]) -> None:
    text = " ".join(_read(sample[1]).words)
    assert "15 October 2008, the worst day of the financial crisis: spot" in text
    assert "days pass" in text
    assert re.search(r"rates \+1 %", text)
    assert re.search(r"short 2 NDX 25,300 calls, 20 Nov 2026", text)
    # The largest loss of the headline is in the chart too.
    chart = sample[1][sample[1].index("<h2>Stress scenarios") :].split("</svg>")[0]
    assert min(sample[0]["stress"], key=lambda one: one["pnl"])["name"] in chart


def test_moves_in_words() -> None:
    scenarios = gk.Scenarios(
        spot_return=np.log([[0.9, 0.75], [1.0, 1.0], [1.2, 1.2], [1.0, 1.0]]),
        vol_change=[[0.15], [0.0], [-0.05], [0.0]],
        rate_change=[-0.005, 0.0, 0.0, 0.01],
        elapsed=[0.0, 14 / 365, 0.0, 0.0],
        names=("crash", "wait", "up", "rates"),
    )
    assert scenario_words(("scenario",) * 4, scenarios) == (
        "spot -25 to -10 %, vol +15 points, rates -0.5 %",
        "14 days pass",
        "spot +20 %, vol -5 points",
        "rates +1 %",
    )


def test_names_of_the_desk_cannot_break_the_page(tmp_path: Path) -> None:
    nasty = "<b>&\"'</td>"
    files = write(
        tmp_path,
        portfolio=PORTFOLIO.replace("alpha", '"' + nasty.replace('"', '""') + '"'),
        scenarios=SCENARIOS.replace('"tech crash"', "'''" + nasty + "'''"),
    )
    out = tmp_path / "out.html"
    result = stress(files, "--report", str(out))
    assert result.exit_code == 0, result.stderr
    assert nasty in "".join(_read(out.read_text()).words)


def test_a_breached_limit_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    files = write(tmp_path, scenarios=SCENARIOS.replace("10_000_000.0", "1000.0"))
    assert stress(files, "--report", str(out)).exit_code == 3
    assert "1 breached" in " ".join(_read(out.read_text()).words)


def test_a_limit_is_breached_by_more_than_all_of_it() -> None:
    used = [Usage("", "es_975", used, 100.0, "x").breached for used in (99.9, 100.0, 100.1)]
    assert used == [False, False, True]


def test_numbers_in_few_characters() -> None:
    shown = [svg.short(value) for value in (0.2, -940, 1_000, -12_345, 999_600, 1_250_000, -123_456_789)]
    assert shown == ["0", "-940", "1k", "-12.3k", "1m", "1.2m", "-123m"]
    assert svg.opacity(0.0) < 0.1 < svg.opacity(0.5) < svg.opacity(1.0) == 1.0
    assert svg.ticks(-95.0, 205.0, 6) == [-50.0, 0.0, 50.0, 100.0, 150.0, 200.0]
