"""pyserver: a web server for Linux that is of systemd rather than merely under it."""

__version__ = "0.1.0"
