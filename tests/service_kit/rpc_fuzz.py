"""Requests that no client would send, to every RPC of a service: noise, random messages, damaged good ones.

    outcomes = await fuzz(channel, SERVICE, good_requests, seed, count=2_000)

Whatever comes, the answer is a result or a refusal: never INTERNAL or UNKNOWN, never a dead server.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from tests.service_kit.rpc_faults import CORE, call

TOGETHER = 8  # requests under way at once
WATCH_S, CALL_S = 0.2, 60.0
DEPTH_MAX = 4
_FORBIDDEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)

_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 100.0, 1e-308, 1e308, -1e308, math.inf, -math.inf, math.nan)
_INTEGERS = (0, 1, 2, 3, 7, 100, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_LENGTHS = (0, 1, 1, 1, 2, 2, 3, 7)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (32, True),
    FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}


class Maker:
    """Makes requests from one seed; `words` are names that mean something to the service."""

    def __init__(self, seed: int, words: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.words = (*words, "", "x", "\x00", "ü" * 300, "nobody")

    def request(self, method: MethodDescriptor, good: Sequence[Message]) -> bytes:
        """A request for that RPC: one kind in five is noise, two are random messages, two are damaged."""
        kind = self.random.randrange(5)
        if kind == 0:
            return self.random.randbytes(self.random.choice((0, 1, 5, 40, 300)))
        message = message_factory.GetMessageClass(method.input_type)()
        if kind in (1, 2) or not good:
            self.fill(message, DEPTH_MAX)
            return message.SerializeToString()
        message.CopyFrom(self.random.choice(good))
        if kind == 3:
            self.damage(message)
            return message.SerializeToString()
        return self.scramble(message.SerializeToString())

    def fill(self, message: Message, depth: int) -> None:
        """Random values in most fields."""
        for field in message.DESCRIPTOR.fields:
            if self.random.random() < 0.7:
                self.set(message, field, depth)

    def damage(self, message: Message) -> None:
        """Another random value in one field somewhere in a good message."""
        inner = [
            value
            for field, value in message.ListFields()
            if field.message_type is not None and not field.is_repeated
        ]
        if inner and self.random.random() < 0.7:
            self.damage(self.random.choice(inner))
        elif message.DESCRIPTOR.fields:
            self.set(message, self.random.choice(list(message.DESCRIPTOR.fields)), DEPTH_MAX)

    def set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        """A random value in one field."""
        if field.message_type is not None:
            target = getattr(message, field.name)
            if depth > 0 and not field.is_repeated:
                target.SetInParent()
                self.fill(target, depth - 1)
            return
        if field.is_repeated:
            column = getattr(message, field.name)
            old = list(column)
            del column[:]
            # A column keeps its length half of the time, so that it is its values that are wrong.
            same = old and self.random.random() < 0.5
            count = len(old) if same else self.random.choice(_LENGTHS)
            column.extend(self.value(field) for _ in range(count))
        else:
            setattr(message, field.name, self.value(field))

    def value(self, field: FieldDescriptor) -> Any:
        """A random value of a field's type, mostly from its edges."""
        kind = field.cpp_type
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self.random.choice((*_FLOATS, self.random.uniform(-2, 2), self.random.uniform(0, 300)))
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self.random.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self.random.choice((0, 1, 2, 3, 4, 99, -1))
        if kind == FieldDescriptor.CPPTYPE_STRING:
            word = self.random.choice(self.words)
            return word if field.type == FieldDescriptor.TYPE_STRING else word.encode()
        bits, signed = _BITS[kind]
        value = self.random.choice(_INTEGERS) % 2**bits
        return value - 2**bits if signed and value >= 2 ** (bits - 1) else value

    def scramble(self, data: bytes) -> bytes:
        """A good message with bytes changed, cut off or doubled."""
        damaged = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            if not damaged:
                break
            at = self.random.randrange(len(damaged))
            what = self.random.randrange(3)
            if what == 0:
                damaged[at] ^= 1 << self.random.randrange(8)
            elif what == 1:
                del damaged[at:]
            else:
                damaged[at:at] = damaged[at : at + 8]
        return bytes(damaged)


async def fuzz(
    channel: grpc.aio.Channel,
    service: ServiceDescriptor,
    good: Mapping[str, Sequence[Message]],
    seed: int,
    count: int,
    words: Sequence[str] = (),
) -> Counter[grpc.StatusCode]:
    """Sends `count` requests over all RPCs; how often each code came. Raises at the first forbidden one."""
    maker, outcomes = Maker(seed, words), Counter[grpc.StatusCode]()
    methods = list(service.methods)
    numbers = iter(range(count))

    async def sender(mine: Iterable[int]) -> None:
        for number in mine:
            method = methods[number % len(methods)]
            data = maker.request(method, good.get(method.name, ()))
            watch = method.server_streaming and not method.client_streaming
            try:
                outcome = await call(channel, method, request=data, timeout=WATCH_S if watch else CALL_S)
            except TimeoutError as hang:
                raise AssertionError(f"{method.name} does not end for {shown(method, data)}") from hang
            # grpc.aio's own client says INTERNAL when the call ends while it still sends a stream.
            client_side = method.client_streaming and outcome.text == CORE
            if outcome.code in _FORBIDDEN and not client_side:
                raise AssertionError(f"{method.name} gave {outcome} for {shown(method, data)}")
            outcomes[outcome.code] += 1

    async with asyncio.TaskGroup() as senders:
        for _ in range(TOGETHER):
            senders.create_task(sender(numbers))
    return outcomes


def shown(method: MethodDescriptor, data: bytes) -> str:
    """A request as text for a failure."""
    try:
        return f"{data!r}: {message_factory.GetMessageClass(method.input_type).FromString(data)}"
    except DecodeError:
        return repr(data)
