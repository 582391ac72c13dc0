//! Which hosts serve.
