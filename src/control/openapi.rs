//! The description of the API, for programs that make clients of it: a document that is written by
//! hand, and that tests hold against the table of routes and the types.

/// An OpenAPI document, version 3.1.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
