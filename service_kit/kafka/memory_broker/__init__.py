"""A Kafka broker in one small process: the protocol as librdkafka speaks it, logs in memory, nothing else.

For the demo and for tests. Clients wait for records here as on a real broker, and a read costs the same
whatever the length of the log. No transactions, no replication, no disk; `embedded` starts and ends it.
"""
