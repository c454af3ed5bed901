//! The description of the API, for programs that make clients of it: a document that is written by
//! hand and held against the table and the types by tests.

/// An OpenAPI document, version 3.1.
pub const DOCUMENT: &str = include_str!("openapi.json");
