"""The person at the terminal: `pyserver top`."""
