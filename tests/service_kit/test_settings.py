"""Settings: every type from both sources, and every refusal names the setting."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.errors import SettingError
from service_kit.settings import SETTINGS_FILE, Secret, as_environment, limited, load


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Broker:
    bootstrap: str = "embedded"
    batch_rows: int = limited(5000, at_least=1, at_most=100_000)
    linger_s: float = 0.005
    acks: Literal["all", "1"] = "all"
    topics: tuple[str, ...] = ("a", "b")
    ports: tuple[int, ...] = ()
    certificate: Path | None = None
    password: Secret | None = None


@dataclass(frozen=True)
class Front:
    port: int = 50051
    tls: bool = False
    colour: Colour = Colour.RED
    low: float = 1.0
    high: float = 2.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


@dataclass(frozen=True)
class Everything:
    name: str
    kafka: Broker = field(default_factory=Broker)
    grpc: Front = field(default_factory=Front)


@dataclass(frozen=True)
class Other:
    depth: int = 3


@dataclass(frozen=True)
class Beside:
    matching: Other = field(default_factory=Other)


def test_defaults() -> None:
    assert load(Everything, {"GPU_RISK_NAME": "x"}) == Everything("x")


def test_every_type_from_the_environment() -> None:
    env = {
        "GPU_RISK_NAME": "desk",
        "GPU_RISK_KAFKA_BOOTSTRAP": "a:9092,b:9092",
        "GPU_RISK_KAFKA_BATCH_ROWS": "17",
        "GPU_RISK_KAFKA_LINGER_S": "1e-3",
        "GPU_RISK_KAFKA_ACKS": "1",
        "GPU_RISK_KAFKA_TOPICS": "x, y",
        "GPU_RISK_KAFKA_PORTS": "1,2",
        "GPU_RISK_KAFKA_CERTIFICATE": "/tmp/c.pem",
        "GPU_RISK_KAFKA_PASSWORD": "s3cret",
        "GPU_RISK_GRPC_TLS": "Yes",
        "GPU_RISK_GRPC_COLOUR": "blue",
        "PATH": "not ours",
        "GPU_RISK_TEST_SEED": "7",
    }
    got = load(Everything, env)
    kafka = Broker("a:9092,b:9092", 17, 1e-3, "1", ("x", "y"), (1, 2), Path("/tmp/c.pem"), Secret("s3cret"))
    assert got == Everything("desk", kafka, Front(tls=True, colour=Colour.BLUE))
    assert load(Everything, as_environment(got)) == got


def test_every_type_from_toml_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'name = "desk"\n[kafka]\nbootstrap = "x:1"\nbatch_rows = 9\nlinger_s = 1\nacks = 1\n'
        'topics = ["q"]\nports = [5]\ncertificate = "/c"\npassword = "p"\n'
        '[grpc]\ntls = true\ncolour = "blue"\n'
    )
    kafka = Broker("x:1", 9, 1.0, "1", ("q",), (5,), Path("/c"), Secret("p"))
    expected = Everything("desk", kafka, Front(tls=True, colour=Colour.BLUE))
    assert load(Everything, {}, file) == expected
    assert load(Everything, {SETTINGS_FILE: str(file)}) == expected
    assert load(Everything, {"GPU_RISK_KAFKA_BOOTSTRAP": "env:1"}, file).kafka.bootstrap == "env:1"


REFUSED_ENV = [
    ("GPU_RISK_KAFKA_BOOTSTRP", "x", "did you mean GPU_RISK_KAFKA_BOOTSTRAP?"),
    ("GPU_RISK_ZZZZZZ", "x", "known: "),
    ("GPU_RISK_KAFKA_BATCH_ROWS", "many", "an integer"),
    ("GPU_RISK_KAFKA_BATCH_ROWS", "", "an integer"),
    ("GPU_RISK_KAFKA_BATCH_ROWS", "0", "at least 1 and at most 100000"),
    ("GPU_RISK_KAFKA_BATCH_ROWS", "100001", "out of range"),
    ("GPU_RISK_KAFKA_LINGER_S", "nan", "a finite number"),
    ("GPU_RISK_KAFKA_LINGER_S", "inf", "a finite number"),
    ("GPU_RISK_KAFKA_ACKS", "some", "one of all, 1"),
    ("GPU_RISK_KAFKA_PORTS", "1,x", "takes an integer"),
    ("GPU_RISK_GRPC_TLS", "maybe", "true or false"),
    ("GPU_RISK_GRPC_COLOUR", "green", "one of red, blue"),
    ("GPU_RISK_GRPC_PORT", "1.5", "an integer"),
]


@pytest.mark.parametrize(("name", "value", "says"), REFUSED_ENV)
def test_a_bad_environment_is_refused_by_name(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingError) as caught:
        load(Everything, {"GPU_RISK_NAME": "x", name: value})
    assert caught.value.name == name
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED_TOML = [
    ("[kafka]\nbootstrp = 'x'", "kafka.bootstrp", "did you mean kafka.bootstrap?"),
    ("[kafkaa]\nx = 1", "kafkaa", "did you mean kafka?"),
    ("kafka = 3", "kafka", "a table"),
    ("[kafka]\nbatch_rows = 1.5", "kafka.batch_rows", "an integer"),
    ("[kafka]\nbatch_rows = true", "kafka.batch_rows", "an integer"),
    ("[kafka]\nbatch_rows = '5'", "kafka.batch_rows", "an integer"),
    ("[kafka]\ntopics = 'a'", "kafka.topics", "a list, each a string"),
    ("[kafka]\ntopics = [1]", "kafka.topics", "a string"),
    ("[kafka]\nbootstrap = 5", "kafka.bootstrap", "a string"),
    ("[kafka]\nlinger_s = inf", "kafka.linger_s", "a finite number"),
    ("[grpc]\ntls = 1", "grpc.tls", "true or false"),
    ("[grpc]\ncolour = 'green'", "grpc.colour", "one of red, blue"),
    ("[grpc.port]\nx = 1", "grpc.port", "an integer"),
    ("[kafka", "", "not a TOML file"),
]


@pytest.mark.parametrize(("text", "name", "says"), REFUSED_TOML)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, name: str, says: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        load(Everything, {"GPU_RISK_NAME": "x"}, file)
    assert name in caught.value.name
    assert says in str(caught.value)


def test_a_missing_setting_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="GPU_RISK_NAME: is missing"):
        load(Everything, {})
    with pytest.raises(SettingError, match=r"absent\.toml: cannot read"):
        load(Everything, {}, tmp_path / "absent.toml")


def test_a_bad_combination_names_the_section() -> None:
    with pytest.raises(SettingError, match=r"setting GPU_RISK_GRPC: low 3\.0 is above high 2\.0"):
        load(Everything, {"GPU_RISK_NAME": "x", "GPU_RISK_GRPC_LOW": "3"})


def test_names_of_other_processes_are_known_only_when_said(tmp_path: Path) -> None:
    env = {"GPU_RISK_NAME": "x", "GPU_RISK_MATCHING_DEPTH": "not read here"}
    with pytest.raises(SettingError, match="GPU_RISK_MATCHING_DEPTH"):
        load(Everything, env)
    assert load(Everything, env, beside=(Beside,)).name == "x"
    file = tmp_path / "s.toml"
    file.write_text("[matching]\ndepth = 5\n")
    assert load(Everything, {"GPU_RISK_NAME": "x"}, file, beside=(Beside,)).name == "x"
    assert load(Beside, {"GPU_RISK_NAME": "x"}, file, beside=(Everything,)).matching.depth == 5


def test_secrets_do_not_show() -> None:
    got = load(Everything, {"GPU_RISK_NAME": "x", "GPU_RISK_KAFKA_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(got) + str(got) + f"{got.kafka.password}"
    assert got.kafka.password is not None
    assert got.kafka.password.reveal() == "hunter2"


def test_two_settings_with_one_name_are_a_programming_error() -> None:
    @dataclass(frozen=True)
    class Bad:
        grpc_port: int = 1
        grpc: Front = field(default_factory=Front)

    # Local classes need their annotations resolved here.
    Bad.__annotations__.update(grpc_port=int, grpc=Front)
    with pytest.raises(TypeError, match="GPU_RISK_GRPC_PORT would mean both"):
        load(Bad, {})


@given(
    bootstrap=st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    rows=st.integers(1, 100_000),
    linger=st.floats(allow_nan=False, allow_infinity=False),
    ports=st.lists(st.integers()).map(tuple),
)
def test_settings_survive_the_environment(
    bootstrap: str, rows: int, linger: float, ports: tuple[int, ...]
) -> None:
    settings = Everything("n", Broker(bootstrap, rows, linger, ports=ports))
    assert load(Everything, as_environment(settings)) == settings
