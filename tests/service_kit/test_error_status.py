"""Every error class is in the table, survives a pickle, and carries the details that the codes promise."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import service_kit
from service_kit import errors
from service_kit.errors import CallError, ServiceKitError
from service_kit.grpc_server.status import CODES, TEXT_MAX, code_of, internal_status, wire_status
from tests.service_kit.rpc_faults import rich_details

EXAMPLES: dict[type[ServiceKitError], tuple[object, ...]] = {
    errors.ServiceKitError: ("x",),
    errors.SettingError: ("GPU_RISK_X", "bad"),
    errors.PortTaken: ("gRPC", "127.0.0.1", 1),
    errors.BrokerUnreachable: ("h:1", "refused"),
    errors.StopTimedOut: (("a", "b"), 1.5),
    errors.CallError: ("x",),
    errors.InvalidRequest: ("options.strike", "is negative", 7),
    errors.DeadlineMissing: (5.0,),
    errors.DeadlineTooLong: (9.0, 5.0),
    errors.DeadlinePassed: (),
    errors.NotFound: ("portfolio", "p"),
    errors.AlreadyExists: ("portfolio", "p"),
    errors.AlreadyChanged: ("portfolio", "p", "version 2"),
    errors.PreconditionFailed: ("x",),
    errors.Unauthenticated: ("x",),
    errors.PermissionDenied: ("x",),
    errors.QuotaExceeded: ("x", 2.25),
    errors.TooLarge: ("x",),
    errors.Unavailable: ("x", 0.5),
    errors.NotSupported: ("x",),
    errors.ServerFault: ("x",),
}
OWN = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ServiceKitError)]


def every_error() -> set[type[ServiceKitError]]:
    """All error classes of the package, those of its sub-packages too."""
    for module in pkgutil.walk_packages(service_kit.__path__, "service_kit."):
        importlib.import_module(module.name)
    found, queue = set[type[ServiceKitError]](), [ServiceKitError]
    while queue:
        found.add(one := queue.pop())
        queue += one.__subclasses__()
    return {one for one in found if one.__module__.startswith("service_kit.")}


def test_every_error_has_a_code() -> None:
    assert set(CODES) == set(OWN) == set(EXAMPLES), "errors.py, the table and this test name the same classes"
    for kind in every_error():
        assert isinstance(code_of(kind), grpc.StatusCode)
        if not issubclass(kind, CallError):
            assert code_of(kind) is grpc.StatusCode.INTERNAL, kind


@pytest.mark.parametrize("kind", OWN, ids=lambda one: one.__name__)
def test_an_error_survives_a_pickle_and_is_one_line(kind: type[ServiceKitError]) -> None:
    error = kind(*EXAMPLES[kind])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("kind", [one for one in OWN if issubclass(one, CallError)], ids=lambda o: o.__name__)
def test_the_status_on_the_wire(kind: type[CallError]) -> None:
    error = kind(*EXAMPLES[kind])
    wire = wire_status(error)
    status = status_pb2.Status.FromString(wire.trailing[0][1])
    assert (status.code, status.message) == (wire.code.value[0], str(error))
    details = {type(one): one for one in rich_details(dict(wire.trailing))}
    assert details[error_details_pb2.ErrorInfo].domain == "gpu-risk"
    assert (error_details_pb2.RetryInfo in details) == (error.retry_after_s is not None)


def test_field_row_and_retry_are_named() -> None:
    bad = rich_details(dict(wire_status(errors.InvalidRequest("options.strike", "is NaN", 7)).trailing))
    violation = next(one for one in bad if isinstance(one, error_details_pb2.BadRequest)).field_violations[0]
    assert (violation.field, violation.description) == ("options.strike[7]", "is NaN")
    busy = rich_details(dict(wire_status(errors.QuotaExceeded("x", 2.25)).trailing))
    delay = next(one for one in busy if isinstance(one, error_details_pb2.RetryInfo)).retry_delay
    assert (delay.seconds, delay.nanos) == (2, 250_000_000)
    info = rich_details(dict(internal_status("abc").trailing))[0]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.metadata["error_id"]) == ("INTERNAL", "abc")


def test_a_long_text_is_cut_to_what_metadata_can_carry() -> None:
    wire = wire_status(errors.InvalidRequest("f" * 100_000, "w" * 100_000))
    assert len(wire.text) == TEXT_MAX
    assert len(wire.trailing[0][1]) < 4 * TEXT_MAX
