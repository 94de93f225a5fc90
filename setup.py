"""Kept for tools that call it; every setting is in pyproject.toml."""

from setuptools import setup

setup()
