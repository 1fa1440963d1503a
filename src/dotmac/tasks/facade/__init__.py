"""The manager's methods, by subject. `manager.py` puts them together."""
