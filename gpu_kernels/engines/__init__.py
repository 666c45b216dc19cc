"""One folder per engine, the same files in each; `choose.py` picks one, `engine.py` is what they have in
common.

A backend folder holds:

- `__init__.py`: `probe()` returns the name of the device, or raises EngineUnavailable saying what is missing.
  Optional: `warm_up()` compiles or loads every kernel; `empty(size, dtype)` where results do not live in
  NumPy.
- `european.py`: `price(columns, out)`, `greeks(columns, out)`;
- `implied_vol.py`: `implied_vol(columns, price, out)`;
- `american.py`: `price(columns, method, out)`, `greeks(columns, method, out)`,
  `implied_vol(columns, price, method, out)`; `method` is "accurate" or "fast";
- `revaluation.py`: `revalue(engine, portfolio, scenarios, by, out)`.

`columns` is `engine.Columns`: flat arrays of n rows (or one element for a field that is the same in every
row); `out` is a result record of flat arrays of n rows, to be written in full, status included. A module that
a folder does not have makes the call raise EngineUnavailable, never fall back in silence.
Optional in a module: `CHUNK_ROWS`, the most rows it takes in one call; `engine.py` then cuts larger batches.
"""
