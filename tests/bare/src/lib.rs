//! There is nothing but the test in `tests`.
