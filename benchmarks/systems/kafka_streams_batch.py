"""Kafka Streams with a processor that gathers 256 records for one model call; a rebalance loses what is gathered."""

from __future__ import annotations

from benchmarks.systems.kafka_streams import main

if __name__ == "__main__":
    main(batched=True)
