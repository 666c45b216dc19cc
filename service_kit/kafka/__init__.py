"""Kafka for service processes: producer, consumer, topics, the in-memory broker and the real one."""
