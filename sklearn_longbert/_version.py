"""The version, where modules can import it without the public names."""

__version__ = "0.2.0.dev0"
