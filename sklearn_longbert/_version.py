"""The version, where modules can import it without the public names."""

__version__ = "0.1.0.dev0"
