"""Types of arrays that modules of all packages use."""

from __future__ import annotations

from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Numbers = NDArray[Union[np.bool_, np.int64, np.float32, np.float64]]  # labels, indices of queries, scores
Vectors = NDArray[np.float32]
STORED_TYPES = ("float32", "float16", "int8")  # dtypes of vectors and states on disk
Array = NDArray[Any]
Arrays = dict[str, Array]  # a padded batch by the names of a model's inputs, or results by the names of its outputs
