"""Which engines there are is looked for in the background: who asks meanwhile is answered."""

from __future__ import annotations

import threading

import grpc
import pytest
from served import PATIENCE_S, Service, serving

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service import engine_survey
from risk_service import engines as module
from risk_service.api import servicer
from risk_service.engine_survey import Known
from risk_service.engines import Engines
from service_kit.grpc_server import GrpcSettings

FOUND = (Known("cpu", "a processor", True, ""), Known("xla", "", False, "needs jax"))


@pytest.fixture
def held(monkeypatch):
    """A survey that goes on until it is let go, and how many there have been."""
    go, begun = threading.Event(), []

    def surveyed():
        begun.append(1)
        assert go.wait(PATIENCE_S)
        return FOUND

    monkeypatch.setattr(module, "surveyed", surveyed)
    yield go, begun
    go.set()


def test_a_list_of_engines_does_not_wait_for_the_survey(held, monkeypatch):
    go, begun = held
    monkeypatch.setattr(servicer, "SURVEY_WAIT_S", 0.01)
    with Service() as service:
        service.engines = Engines(gk.engine("cpu"), "for the test")
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):

            def listed():
                answer = RiskServiceStub(channel).ListEngines(wire.ListEnginesRequest(), timeout=PATIENCE_S)
                return {one.name: (one.available, one.reason) for one in answer.engines}

            early = listed()
            assert early.pop("cpu") == (True, "for the test")
            assert early == dict.fromkeys(("cuda", "xla", "reference"), (False, "is still being looked for"))
            go.set()
            service.engines.survey().result(PATIENCE_S)
            assert listed() == {"cpu": (True, "for the test"), "xla": (False, "needs jax")}
    assert len(begun) == 1


def test_a_survey_that_cannot_be_made_is_made_again(monkeypatch):
    answers = [OSError("no more processes"), TimeoutError("no answer within 60 s"), FOUND]

    def surveyed():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(module, "surveyed", surveyed)
    engines = Engines(gk.engine("cpu"), "for the test")
    for why in ("no more processes", "no answer within 60 s"):
        found = engines.survey().result(PATIENCE_S)
        assert {one.name: one.reason for one in found}["xla"] == f"could not be looked for: {why}"
    assert engines.survey().result(PATIENCE_S) == FOUND


def test_a_process_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(engine_survey, "WITHIN_S", 0.0)
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        engine_survey.surveyed()
