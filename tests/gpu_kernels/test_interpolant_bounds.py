"""Interpolants keep their error bound where they are at their worst; what exceeds it is told."""

from __future__ import annotations

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.american_book import TOLERANCE, AmericanBook
from gpu_kernels.revaluation import position_pnl, shocks
from gpu_kernels.shocked_options import repriced_pnl

COUNT = 16


def columns(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Options from a week to four years, vols of 6 to 100 %, strikes half to twice the spot."""
    return {
        "spot": np.full(COUNT, 100.0),
        "strike": 100.0 * np.exp(rng.uniform(-0.5, 0.5, COUNT)),
        "expiry": np.exp(rng.uniform(np.log(5 / 252), np.log(4.0), COUNT)),
        "vol": np.exp(rng.uniform(np.log(0.06), 0.0, COUNT)),
        "rate": rng.uniform(0.005, 0.1, COUNT),
        "dividend_yield": rng.uniform(0.0, 0.1, COUNT),
        "is_call": rng.random(COUNT) < 0.5,
    }


def short(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A day or a few to expiry, near the strike: the premium bends within a fraction of a per cent."""
    return columns(rng) | {
        "expiry": rng.uniform(1.5, 8.0, COUNT) / 252,
        "strike": 100.0 * np.exp(rng.uniform(-0.05, 0.05, COUNT)),
    }


def rate_near_yield(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Where the limit of the boundary at expiry has its kink."""
    given = columns(rng)
    return given | {"dividend_yield": given["rate"] + rng.normal(0.0, 0.002, COUNT)}


def low_vols(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Vols that the shocks take down to the floor."""
    return columns(rng) | {
        "vol": rng.uniform(0.03, 0.1, COUNT),
        "strike": 100.0 * np.exp(rng.uniform(-0.1, 0.1, COUNT)),
    }


def at_the_boundary(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Strikes at which today's spot is where exercise begins: scenarios lie on both sides of it."""
    given = columns(rng)
    given["dividend_yield"] = np.maximum(given["dividend_yield"], 0.02)
    call = given["is_call"]
    low, high = np.where(call, 20.0, 100.0), np.where(call, 100.0, 400.0)
    for _ in range(40):
        given["strike"] = (low + high) / 2.0
        price = gk.engine("cpu").price(gk.Options(**given, american=True)).price
        exercised = price <= np.abs(given["strike"] - 100.0) + 1e-7
        up = exercised == call
        low, high = np.where(up, given["strike"], low), np.where(up, high, given["strike"])
    return given


@pytest.mark.parametrize("rates", [False, True])
@pytest.mark.parametrize("kind", [columns, short, rate_near_yield, low_vols, at_the_boundary])
def test_no_value_is_further_off_than_its_bound(
    cpu: gk.Engine, rng: np.random.Generator, kind: object, rates: bool
) -> None:
    """Every value over a field of spots and vols much finer than nodes and checks, edges included."""
    reach, spread = [(0.05, 0.01), (0.2, 0.05), (0.5, 0.02)][int(rng.integers(3))]
    given = kind(rng)
    book = gk.Portfolio(gk.Options(**given, american=True), rng.normal(size=COUNT), 100.0, underlying=0)
    moves = np.concatenate([np.linspace(-reach, reach, 25), rng.uniform(-reach, reach, 16)])
    vols = np.concatenate([[-spread, spread], rng.uniform(-spread, spread, 5)])
    spot, vol = (field.reshape(-1, 1) for field in np.meshgrid(moves, vols))
    rate = rng.uniform(-0.002, 0.002, len(spot)) if rates else 0.0
    scenarios = gk.Scenarios(spot, vol, rate_change=rate, elapsed=float(rng.choice([0.0, 1 / 252])))
    held = AmericanBook(cpu, book, scenarios)
    kept = held.interpolated
    wanted = np.empty((len(kept), len(scenarios)))
    part = book.rows(kept)
    repriced_pnl(cpu, part, shocks(part, scenarios), wanted)
    size = np.abs(part.quantity * part.multiplier) * part.spot
    found = np.abs(held.position_pnl(scenarios)[kept] - wanted).max(axis=1, initial=0.0) / size
    print(kind.__name__, given, held.notes, found / held.bounds)
    assert (found <= held.bounds).all()
    assert (held.bounds <= TOLERANCE).all()
    assert np.array_equal(np.sort(np.concatenate([held.interpolated, held.exact])), np.arange(COUNT))


def test_what_no_interpolant_can_hold_is_priced_in_full_and_counted(cpu: gk.Engine) -> None:
    """A vol down to its floor, near the strike, beside an option that is easy."""
    options = gk.Options(
        spot=100.0,
        strike=[100.0, 95.0],
        expiry=0.25,
        vol=[0.05, 0.3],
        rate=0.05,
        is_call=False,
        american=True,
    )
    book = gk.Portfolio(options, [1.0, 2.0])
    scenarios = gk.Scenarios(np.linspace(-0.2, 0.2, 9)[:, None], np.linspace(-0.05, 0.05, 9)[:, None])
    held = AmericanBook(cpu, book, scenarios)
    assert held.exact.tolist() == [0]
    (said,) = held.notes
    assert said.startswith("1 of 2 American positions are priced exactly: the error bound")
    moved = AmericanBook(cpu, book, gk.Scenarios([[-0.1], [0.1]], rate_change=[-0.06, 0.0]))
    assert "kink in the rate" in moved.notes[-1]
    wanted = np.empty((1, 9))
    first = book.rows(np.array([0]))
    repriced_pnl(cpu, first, shocks(first, scenarios), wanted)
    assert held.position_pnl(scenarios)[0] == pytest.approx(wanted[0], abs=1e-5)


def test_the_bound_is_of_what_is_seen_and_left_out(cpu: gk.Engine) -> None:
    """Fewer nodes make larger bounds, and they still hold."""
    options = gk.Options(
        spot=100.0, strike=[90.0, 100.0, 110.0], expiry=0.5, vol=0.3, rate=0.05, is_call=False, american=True
    )
    book = gk.Portfolio(options, 1.0)
    scenarios = gk.Scenarios(np.linspace(-0.3, 0.3, 61)[:, None], np.tile([-0.1, 0.0, 0.1], 21)[:61, None])
    wanted = np.empty((3, 61))
    repriced_pnl(cpu, book, shocks(book, scenarios), wanted)
    last = 0.0
    for nodes in ((32, 8, 4), (16, 6, 4), (10, 4, 4), (6, 3, 4)):
        held = AmericanBook(cpu, book, scenarios, nodes=nodes, tolerance=1e-2)
        found = np.abs(held.position_pnl(scenarios) - wanted).max(axis=1) / 100.0
        assert (found <= held.bounds).all()
        assert held.error >= last
        last = held.error
    assert last > 1e-3 + 1e-4


@pytest.mark.parametrize("rates", [False, True])
@pytest.mark.parametrize("kind", [columns, short, rate_near_yield, low_vols, at_the_boundary])
def test_values_from_interpolated_boundaries_are_within_their_tolerance(
    cpu: gk.Engine, rng: np.random.Generator, kind: object, rates: bool
) -> None:
    """What `revalue` itself does under many scenarios that move vols and rates, against single prices."""
    moves = cpu.module("american_moves")
    given = kind(rng)
    book = gk.Portfolio(gk.Options(**given, american=True), 1.0, underlying=0)
    size, vol, rate = [(0.03, 0.01, 0.001), (0.1, 0.05, 0.004), (0.03, 0.1, 0.0002)][int(rng.integers(3))]
    count = 260
    scenarios = gk.Scenarios(
        rng.normal(0.0, size, (count, 1)),
        rng.normal(0.0, vol, (count, 1)),
        rate_change=rng.normal(0.0, rate, count) if rates else 0.0,
        elapsed=float(rng.choice([0.0, 1 / 252])),
    )
    moved = shocks(book, scenarios)
    wanted, found = np.empty((COUNT, count)), np.empty((COUNT, count))
    repriced_pnl(cpu, book, moved, wanted)
    lost = moves.moved_pnl(cpu, book, moved, found)
    kept = np.setdiff1d(np.arange(COUNT), lost)
    error = np.abs(found - wanted)[kept].max(axis=1, initial=0.0) / 100.0
    print(kind.__name__, given, lost, error)
    assert (error <= moves.TOLERANCE).all()
    assert np.array_equal(position_pnl(cpu, book, scenarios)[kept], found[kept])
    assert position_pnl(cpu, book, scenarios)[lost] == pytest.approx(wanted[lost], abs=1e-9)
