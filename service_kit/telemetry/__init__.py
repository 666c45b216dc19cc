"""Logs, metrics and traces of a service process."""
