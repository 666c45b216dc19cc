"""The file of daily closes and vols: what is wrong in it is refused by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from risk_service import price_history
from service_kit.errors import SettingError

HEADER = "date,A,A.vol\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a column `date`"),
        ("date,A,B,A.vol\n", "no column B.vol"),
        (HEADER + "2020-01-02,1,0.2\n", "has 1 days"),
        (HEADER + "2020-01-02,1\n", "line 2: A.vol is no positive number"),
        (HEADER + "2020-01-02,1,0.2\n2020-01-03,nan,0.2\n", "line 3: A is no positive number"),
        (HEADER + "2020-01-02,1,-0.2\n", "line 2: A.vol is no positive number"),
        (HEADER + "02/01/2020,1,0.2\n", r"line 2: \['02/01/2020'\] is no date"),
        (HEADER + "2020-01-02,1,0.2\n\n", r"line 3: \[\] is no date"),
        (
            HEADER + "2020-01-02,1,0.2\n2020-01-02,1,0.2\n",
            "line 3: 2020-01-02 does not come",
        ),
        (
            HEADER + "2020-01-03,1,0.2\n2020-01-02,1,0.2\n",
            "does not come after 2020-01-03",
        ),
    ],
)
def test_a_bad_file_is_refused_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SettingError, match=message):
        price_history.read(path)
