"""The types of columns: one value for each event of a batch."""

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]  # shape (n,)
Float64s = npt.NDArray[np.float64]  # shape (n,)
Int64s = npt.NDArray[np.int64]  # shape (n,)
