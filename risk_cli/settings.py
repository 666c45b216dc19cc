"""Settings of the processes that the commands start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from book_service.settings import BookServiceSettings
from market_sim.settings import MarketSimSettings
from risk_cli.servers import ClientSettings
from risk_service.settings import RiskServiceSettings
from service_kit.settings import load

SettingsT = TypeVar("SettingsT")

# All processes may share one environment or file: each knows the others' names and passes them over.
EVERY_PROCESS = (RiskServiceSettings, BookServiceSettings, MarketSimSettings, ClientSettings)


def loaded(settings_class: type[SettingsT], toml: Path | None = None) -> SettingsT:
    """The settings of one process, checked; a wrong one raises SettingError naming it."""
    settings: Any = load(settings_class, toml_path=toml, beside=EVERY_PROCESS)
    checked: SettingsT = settings.validate()
    return checked
