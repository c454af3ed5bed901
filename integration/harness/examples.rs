//! Commands of the example workers.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The worker that misbehaves on demand; its modes are at the head of `examples/odd.rs`.
pub fn odd() -> PathBuf {
    built("odd")
}

/// The HTTP worker in Rust.
pub fn http_rust() -> Vec<OsString> {
    vec![built("http").into()]
}

/// The same in Python.
pub fn http_python() -> Vec<OsString> {
    vec!["python3".into(), source("http.py").into()]
}

/// The same in Node.
pub fn http_node() -> Vec<OsString> {
    vec!["node".into(), source("http.js").into()]
}

/// Cargo builds the examples before it runs these tests, beside the binary.
fn built(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_shepherd"));
    let path = binary.with_file_name("examples").join(name);
    assert!(path.exists(), "there is no `{}`; `cargo build --examples`", path.display());
    path
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}
