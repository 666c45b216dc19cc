"""Every command that asks a server, against one that wants TLS and a token; and what goes wrong without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from desk_files import run
from served import PATIENCE_S, Service, serving
from served_desk import desk_options
from worlds import option, portfolio

import risk_client
from service_kit.grpc_server import GrpcSettings
from tests.service_kit.certificates import World

ONE = ("--spot", "100", "--strike", "110", "--expiry", "0.5")
LEAVES = {
    "price": ("price", *ONE, "--vol", "0.2"),
    "iv": ("iv", *ONE, "--price", "3.5"),
    "es": ("es", "--portfolio", "desk.csv"),
    "stress": ("stress", "--portfolio", "desk.csv", "--scenarios", "scenarios.toml"),
    "hedge": ("hedge", "--name", "alice's"),
    "engines": ("engines",),
    "watch": ("watch", "--portfolio", "alice's", "--seconds", "1"),
}


@dataclass(frozen=True)
class Secured:
    """A server that knows who asks, and the files of one who may."""

    address: str
    ca: Path
    token: Path
    cert: Path
    key: Path
    world: World

    def options(self) -> tuple[str, ...]:
        return ("--server", self.address, "--ca", str(self.ca), "--token-file", str(self.token))


@pytest.fixture(scope="module")
def secured(desk_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    world = World.make(folder)
    token = folder / "token"
    token.write_text(world.issuer.token("alice") + "\n")
    cert, key = world.client.write(folder, "desk")
    settings = GrpcSettings(**world.settings(client_ca=None))
    with serving(lambda: desk_service.server(settings)) as server:
        address = f"localhost:{server.port}"
        credentials = risk_client.tls(world.authority.cert)
        with risk_client.RiskClient(
            address, credentials, world.issuer.token("alice"), deadline_s=PATIENCE_S
        ) as client:
            client.put_portfolio(portfolio("alice's", rows=(option(90.0, False, 10.0),)))
        yield Secured(address, folder / "ca.pem", token, cert, key, world)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk_options(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", LEAVES)
def test_a_command_with_a_token_over_tls(secured: Secured, name: str) -> None:
    done = run(*LEAVES[name], *secured.options(), "--json")
    # The desk breaches one of its limits; watching ends at its deadline.
    assert done.exit_code == (3 if name == "stress" else 0), done.stderr
    if name != "watch":
        assert json.loads(done.stdout)
    else:
        assert all(json.loads(line)["portfolio"] == "alice's" for line in done.stdout.splitlines())


def test_the_environment_says_it_too(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_RISK_CLIENT_CA", str(secured.ca))
    monkeypatch.setenv("GPU_RISK_CLIENT_TOKEN", secured.token.read_text().strip())
    done = run("engines", "--server", secured.address, "--json")
    assert (done.exit_code, json.loads(done.stdout)["serving"]) == (0, "cpu"), done.stderr
    # The command line wins over it.
    spoilt = secured.ca.with_name("spoilt")
    spoilt.write_text("no.such.token")
    done = run("engines", "--server", secured.address, "--token-file", str(spoilt))
    assert (done.exit_code, "token" in done.stderr) == (1, True)
    # Without a server the environment is no fault: it waits for one.
    assert run("price", *ONE, "--vol", "0.2", "--engine", "reference").exit_code == 0
    monkeypatch.setenv("GPU_RISK_CLIENT_TOKN", "x")
    done = run("engines", "--server", secured.address)
    assert (done.exit_code, "GPU_RISK_CLIENT_TOKN" in done.stderr) == (2, True)


def test_a_certificate_says_who_asks(desk_service: Service, secured: Secured) -> None:
    settings = GrpcSettings(**secured.world.settings(auth="mtls"))
    with serving(lambda: desk_service.server(settings)) as server:
        words = ("engines", "--server", f"localhost:{server.port}", "--ca", str(secured.ca))
        pair = ("--cert", str(secured.cert), "--key", str(secured.key))
        assert run(*words, *pair).exit_code == 0
        assert run(*words).exit_code == 1
        done = run(*words, *pair[:2])
        assert (done.exit_code, "--key: is missing" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        (("--token-file",), "--token-file"),
        (("--ca", "--token-file"), "--tls or --ca"),
    ],
)
def test_what_is_left_out_is_said(secured: Secured, left_out: tuple[str, ...], says: str) -> None:
    pairs = zip(secured.options()[::2], secured.options()[1::2], strict=True)
    words = [word for name, value in pairs if name not in left_out for word in (name, value)]
    done = run("engines", *words)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.stderr
    assert says in done.stderr


def test_another_authority_is_not_trusted(secured: Secured, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(World.make(tmp_path).authority.cert)
    done = run("engines", "--server", secured.address, "--ca", str(other))
    assert (done.exit_code, "authority" in done.stderr) == (1, True), done.stderr


def test_what_kind_of_server_it_is_is_said(address: str, secured: Secured) -> None:
    done = run("engines", "--server", address, "--ca", str(secured.ca))
    assert (done.exit_code, "does not speak TLS" in done.stderr) == (1, True), done.stderr
    done = run("engines", "--server", "localhost")
    assert (done.exit_code, "HOST:PORT" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("option", ["--ca", "--cert", "--token-file"])
def test_a_file_that_is_none_is_refused(secured: Secured, tmp_path: Path, option: str) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    done = run("engines", "--server", secured.address, option, str(empty))
    assert (done.exit_code, option in done.stderr, str(empty) in done.stderr) == (2, True, True), done.stderr


def test_a_token_does_not_cross_a_network_in_the_clear(secured: Secured) -> None:
    done = run("engines", "--server", "risk.example:50051", "--token-file", str(secured.token))
    assert (done.exit_code, "in the clear" in done.stderr) == (2, True), done.stderr


def test_a_connection_without_a_server_is_a_slip(secured: Secured) -> None:
    done = run("es", "--sample", "--ca", str(secured.ca))
    assert (done.exit_code, "--server" in done.stderr) == (2, True)


def test_services_pass_the_clients_settings_over() -> None:
    from risk_cli.settings import EVERY_PROCESS
    from risk_service.settings import RiskServiceSettings
    from service_kit.settings import load

    environment = {"GPU_RISK_KAFKA_BOOTSTRAP": "embedded", "GPU_RISK_CLIENT_TOKEN": "secret"}
    assert load(RiskServiceSettings, environment, beside=EVERY_PROCESS)
