//! Named conditions.
