"""Fast readers of a run's tables and settings.

Tables are read into Arrow, which reads several files at once on several cores. YAML is read by the parser written in C,
or not at all if the run has the same in JSON.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import yaml
from pandas import DataFrame
from pyarrow import csv

SETTINGS_FILE = "settings.json"
"""The contents of a run's YAML files as JSON, each with the checksum of its file."""

TEXTS = (
    "arm", "norm", "backbone", "setting", "domain", "role", "part", "condition", "measure", "layer", "statistic",
    "label", "mean_over",
)  # fmt: skip
"""Columns that are always text, even if an arm is called 50."""


def read_table(file: Path) -> pa.Table:
    """A table from a CSV or Parquet file.

    Raises:
        OSError: it cannot be read. ValueError (pyarrow's errors are such): it is damaged.
    """
    if not file.is_file():  # Arrow would read a folder as a table in parts
        raise FileNotFoundError(f"{file} is no file")
    if file.suffix == ".parquet":
        return pyarrow.parquet.ParquetFile(file).read(use_threads=False)

    with file.open(encoding="utf-8") as opened:
        logged = [name for name in opened.readline().rstrip("\n").split(",") if "/" in name]  # DOMAIN/MEASURE
    try:
        return _read_csv(file, dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(logged, pa.float64()))
    except pa.ArrowInvalid:  # not a number
        return _read_csv(file, dict.fromkeys(TEXTS, pa.string()))


def _read_csv(file: Path, types: dict[str, pa.DataType]) -> pa.Table:
    """A table whose types are known or else inferred by Arrow, which takes four times as long."""
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    return csv.read_csv(file, csv.ReadOptions(use_threads=False), convert_options=convert)


def read_what_is_whole(file: Path) -> DataFrame:
    """A table from its file. If a CSV file is damaged or still being written, the readable lines are returned.

    Raises: as `read_table`, if nothing can be read.
    """
    try:
        return to_frame(read_table(file))
    except ValueError:
        if file.suffix == ".parquet":
            raise

    return pd.read_csv(file, on_bad_lines="skip", dtype=dict.fromkeys(TEXTS, str))


def with_columns(table: pa.Table, front: Sequence[str], columns: Collection[str] = ()) -> pa.Table:
    """The table with some columns in front, and with empty `columns` if it lacks them."""
    for name in [*front, *columns]:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table)))
    others = [name for name in table.column_names if name not in front]
    return table.select([*front, *others])


def long_metrics(wide: pa.Table, labels: Sequence[str]) -> pa.Table:
    """A row a logged value, in the order of the steps, of a table with a column for each metric."""
    kept = [*labels, "step", "epoch"]
    wide = with_columns(wide, kept)
    numeric = {f.name for f in wide.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)}
    names = [name for name in wide.column_names if name in numeric and name not in kept]
    columns = [np.asarray(wide[name].to_numpy(zero_copy_only=False), np.float64) for name in names]
    values = np.stack(columns, axis=1) if names else np.empty((len(wide), 0))
    rows, places = np.nonzero(~np.isnan(values))
    metric = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(names, pa.string()))
    long = wide.select(kept).take(pa.array(rows))
    return long.append_column("metric", metric.cast(pa.string())).append_column("value", pa.array(values[rows, places]))


def joined_tables(tables: Sequence[pa.Table], front: Sequence[str]) -> pa.Table:
    """Tables below one another, some columns in front. A column that is text in one of them is text in all."""
    kinds: dict[str, set[pa.DataType]] = {}
    for field in {field for table in tables for field in table.schema}:
        kinds.setdefault(field.name, set()).add(field.type)
    texts = {
        name
        for name, types in kinds.items()
        if len(types) > 1 and any(pa.types.is_string(each) or pa.types.is_large_string(each) for each in types)
    }

    def agreeing(table: pa.Table) -> pa.Table:
        if texts.isdisjoint(table.column_names):
            return table
        return table.cast(
            pa.schema(field.with_type(pa.large_string()) if field.name in texts else field for field in table.schema)
        )

    whole = pa.concat_tables([agreeing(table) for table in tables], promote_options="permissive")
    return with_columns(whole, front)


def to_frame(table: pa.Table) -> DataFrame:
    """The table for pandas."""
    return table.to_pandas(split_blocks=True, ignore_metadata=True)


# ------------------------------------------------------------------------------------------------------------- settings


def parse_yaml(text: str | bytes) -> object:
    """Parse YAML, with tuples as lists and empty text as an empty mapping. Raises yaml.YAMLError."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML was built with it

    class Loader(base):
        pass

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_yaml_seq)
    return yaml.load(text, Loader) or {}


def read_settings(run: Path, name: str, kept: dict | None = None) -> object:
    """The contents of a YAML file of a run.

    Args:
        name: of the file, from the run's folder.
        kept: the value of `kept_settings`, which is used if the file has not changed since.

    Raises:
        OSError, ValueError, yaml.YAMLError: the file is missing or damaged.
    """
    content = (run / name).read_bytes()
    known = (kept or {}).get(name)
    if isinstance(known, dict) and known.get("crc32") == zlib.crc32(content) and "says" in known:
        return known["says"]
    return parse_yaml(content.decode("utf-8"))


def kept_settings(run: Path) -> dict:
    """The file that `settings_in_json` wrote; empty if it is missing or damaged."""
    try:
        found = json.loads((run / SETTINGS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def settings_in_json(run: Path, names: Iterable[str]) -> str:
    """The text of SETTINGS_FILE: the contents of those named YAML files that can be read."""
    found = {}
    for name in names:
        try:
            content = (run / name).read_bytes()
            found[name] = {"crc32": zlib.crc32(content), "says": parse_yaml(content.decode("utf-8"))}
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
    return json.dumps(found, default=str)


def plain_settings(settings: Mapping, taken: Iterable[str]) -> dict:
    """Settings as columns of a table: lists and mappings as text, without names that label columns have."""

    def text(value):
        if isinstance(value, (list, tuple)):
            return " ".join(map(str, value))
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value

    return {name: text(value) for name, value in settings.items() if name not in taken}
