"""Command lines from dataclasses: each field is a flag, and the line of prose under it is the flag's help."""

import dataclasses
import sys
from pathlib import Path
from typing import TypeVar

import yaml
from simple_parsing import ArgumentParser, DashVariant, NestedMode, ParsingError  # noqa: F401

Flags = TypeVar("Flags")
