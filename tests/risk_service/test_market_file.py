"""The market's file: the state comes back whole and reads on; another log, or a damaged file, is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import priced_market, quotes

from risk_service.market_file import MarketFile, StoredMarket, fingerprint
from risk_service.market_state import MarketState
from service_kit.errors import SettingError
from service_kit.kafka.records import Record


def record(offset: int, value: bytes = b"tick", partition: int = 0) -> Record:
    return Record("market", partition, offset, "IDX", value, (), 5)


def same(one: MarketState, other: MarketState) -> None:
    symbols, data, offsets, clocks = one.parts()
    others = other.parts()
    assert (symbols, offsets, clocks) == (others[0], others[2], others[3])
    assert data.tobytes() == others[1].tobytes()


def test_the_state_comes_back_and_goes_on_as_if_nothing_had_been(tmp_path):
    path, state = tmp_path / "market", priced_market()
    StoredMarket(state, {0: 77}).save(path)
    found = StoredMarket.load(path)
    assert found is not None
    assert found.last == {0: 77}
    same(found.state, state)
    for one in (state, found.state):
        one.apply(quotes([f"S{n}" for n in range(900)], np.arange(900) + 1.0), "IDX", 0, 9)
    same(found.state, state)
    assert found.state.snapshot_id() == "0:10"
    assert [one.name for one in tmp_path.iterdir()] == ["market"]


@pytest.mark.parametrize("damage", [b"", b"abc", None])
def test_a_damaged_file_is_left_aside(tmp_path, damage, caplog):
    path = tmp_path / "market"
    StoredMarket(priced_market(), {0: 77}).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content) if damage is None else damage)
    assert StoredMarket.load(path) is None
    assert "damaged" in caplog.text
    path.unlink()
    assert StoredMarket.load(path) is None


def saved(path, state: MarketState) -> None:
    file = MarketFile(path, 30.0)
    file.note(record(3))
    file.save_when_due(state, 100.0)
    file.note(record(4))
    file.save_when_due(state, 101.0)  # too soon
    file.close()


def test_reading_goes_on_at_the_last_record_which_is_known(tmp_path):
    path = tmp_path / "market"
    saved(path, priced_market())  # its last record is that at 3
    file = MarketFile(path, 30.0)
    state, begins = file.restore()
    assert begins == {0: 3}
    assert state.snapshot_id() == "0:4"
    file.save_when_due(state, 500.0)  # not before the log is known to be the same
    assert file._writing is None
    assert file.is_known(record(3))
    assert not file.is_known(record(4))
    assert not file.is_known(record(0, partition=1))
    file.note(record(4))
    file.save_when_due(state, 501.0)
    file.close()
    assert StoredMarket.load(path).last == {0: fingerprint(record(4))}


@pytest.mark.parametrize("other", [record(3, b"tock"), record(2), record(7)])
def test_another_log_is_refused(tmp_path, other):
    path = tmp_path / "market"
    saved(path, priced_market())
    file = MarketFile(path, 30.0)
    file.restore()
    with pytest.raises(SettingError, match="of another log"):
        file.is_known(other)
    file.close()


def test_where_the_file_cannot_be_written_the_last_one_stays_and_it_is_said(tmp_path, caplog):
    path, state = tmp_path / "market", priced_market()
    saved(path, state)
    before, file = path.read_bytes(), MarketFile(path, 30.0)
    file.note(record(3))
    # Nobody can put a file in the place of this folder, and the half beside it is taken away.
    path.rename(tmp_path / "kept")
    path.mkdir()
    file.save_when_due(state, 100.0)
    assert isinstance(file._writing.exception(), IsADirectoryError)
    file.save_when_due(state, 200.0)
    assert "cannot be kept" in caplog.text
    path.rmdir()
    file.close()
    assert (tmp_path / "kept").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.name != "market"] == ["kept"]
