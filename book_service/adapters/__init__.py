"""Feeds in their own formats to market.data.raw: pure decoders, and thin shells over files and sockets.

Every decoder takes bytes, text or arrays and gives `RawColumns`; nothing here knows Kafka.
"""
