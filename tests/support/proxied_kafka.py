"""An Apache Kafka that workers reach through a proxy only, and everybody else directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.kafka_server import ApacheKafka
from support.proxy import FaultProxy

from modelstream.streams.embedded import free_port


@contextmanager
def proxied_kafka(start_kafka: Callable[..., ApacheKafka]) -> Iterator[tuple[ApacheKafka, FaultProxy]]:
    """Start a broker with a second listener, whose advertised address is a proxy in front of it."""
    direct, behind, controller = free_port(), free_port(), free_port()
    with FaultProxy(behind) as proxy:
        yield (
            start_kafka(
                port=direct,
                settings={
                    "listeners": f"PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind}"
                    f",CONTROLLER://127.0.0.1:{controller}",
                    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{proxy.port}",
                    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
                    "inter.broker.listener.name": "PLAINTEXT",
                    "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                },
            ),
            proxy,
        )
