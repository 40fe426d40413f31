"""Systemd: activation, notification, journal."""
