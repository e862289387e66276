"""Lab code: synthetic data, benchmarks, the paper's tables, one-off recipes. posedy does not import it."""

import posedy  # noqa: F401  (imported before torch because it configures OpenMP threads)
