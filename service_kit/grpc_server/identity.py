"""Who calls: a bearer token's subject, a client certificate's common name, or nobody."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

import jwt
from jwt.exceptions import InvalidKeyError

from service_kit.errors import SettingError, Unauthenticated
from service_kit.grpc_server.settings import GrpcSettings

ANYBODY = "anonymous"
TOKENS_KEPT = 4096  # verified tokens remembered; a signature costs ~100 us to verify, a look-up 0.2 us
SUBJECT_MAX = 256  # characters; the principal is a key of the quota tables and goes into logs

Metadata = Iterable[tuple[str, str | bytes]]


class Context(Protocol):
    """The part of a gRPC servicer context that tells who calls."""

    def invocation_metadata(self) -> Metadata: ...

    def auth_context(self) -> Any: ...


class Tokens:
    """Verifies bearer tokens: fixed algorithms, audience, issuer and expiry, all of them required."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._algorithms: list[str] = list(settings.token_algorithms)
        self._key = _key(settings)
        self._audience, self._issuer = settings.token_audience, settings.token_issuer
        self._leeway_s = settings.token_leeway_s
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def principal(self, metadata: Metadata) -> str:
        """The subject of the call's token; raises Unauthenticated."""
        token = _bearer(metadata)
        kept = self._kept.get(token)
        if kept is None:
            kept = self._verify(token)
            self._kept[token] = kept
            if len(self._kept) > TOKENS_KEPT:
                self._kept.popitem(last=False)
        if time.time() > kept[1]:
            self._kept.pop(token, None)
            raise Unauthenticated("the token has expired")
        return kept[0]

    def _verify(self, token: str) -> tuple[str, float]:
        """(subject, moment of expiry in epoch seconds, leeway included)."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("the token has expired") from error
        except jwt.InvalidAudienceError as error:
            raise Unauthenticated("the token is for another audience") from error
        except jwt.InvalidIssuerError as error:
            raise Unauthenticated("the token is of another issuer") from error
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"the token lacks the claim {error.claim}") from error
        except jwt.ImmatureSignatureError as error:
            raise Unauthenticated("the token is not valid yet") from error
        except jwt.InvalidTokenError as error:
            raise Unauthenticated("the token does not hold") from error
        subject = claims["sub"]
        if not subject or len(subject) > SUBJECT_MAX:
            raise Unauthenticated(f"the token's subject is empty or longer than {SUBJECT_MAX} characters")
        return subject, float(claims["exp"]) + self._leeway_s


def _key(settings: GrpcSettings) -> Any:
    """The key in the form that PyJWT verifies with, refused here when it does not fit the algorithms."""
    if settings.token_secret is not None:
        return settings.token_secret.reveal().encode()
    path = settings.token_key
    if path is None:
        raise SettingError("GPU_RISK_GRPC_TOKEN_KEY", "is missing; auth token needs it")
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise SettingError("GPU_RISK_GRPC_TOKEN_KEY", f"cannot read {path}: {error.strerror}") from error
    keys = []
    for name in settings.token_algorithms:
        try:
            keys.append(jwt.get_algorithm_by_name(name).prepare_key(pem))
        except (ValueError, TypeError, InvalidKeyError) as error:
            why = f"{path} holds no PEM public key for {name}"
            raise SettingError("GPU_RISK_GRPC_TOKEN_KEY", why) from error
        if not hasattr(keys[-1], "public_bytes") or hasattr(keys[-1], "private_bytes"):
            raise SettingError("GPU_RISK_GRPC_TOKEN_KEY", f"{path} must hold the public key alone")
    return keys[0]


def _bearer(metadata: Metadata) -> str:
    found = None
    for key, value in metadata:
        if key == "authorization":
            if found is not None:
                raise Unauthenticated("more than one authorization header")
            found = value
    if found is None:
        raise Unauthenticated("no bearer token; send `authorization: Bearer <token>`")
    text = found if isinstance(found, str) else ""
    if text[:7].lower() != "bearer ":
        raise Unauthenticated("the authorization header is not `Bearer <token>`")
    return text[7:].strip()


class Identities:
    """Tells the principal of a call by the server's auth mode."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._mode = settings.auth
        self._tokens = Tokens(settings) if settings.auth == "token" else None

    def principal(self, context: Context) -> str:
        """The principal of this call; raises Unauthenticated."""
        if self._tokens is not None:
            return self._tokens.principal(context.invocation_metadata())
        if self._mode == "mtls":
            return _common_name(context)
        return ANYBODY


def _common_name(context: Context) -> str:
    names = context.auth_context().get("x509_common_name", ())
    if len(names) != 1 or not names[0] or len(names[0]) > SUBJECT_MAX:
        raise Unauthenticated("the client certificate has no single common name")
    name: str = names[0].decode("utf-8", "replace")
    return name
