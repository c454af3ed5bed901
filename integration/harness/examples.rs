//! Commands of the example workers.

use std::{
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

/// The worker that misbehaves on demand; its modes are at the head of `examples/odd.rs`.
pub fn odd() -> PathBuf {
    built("odd")
}

/// The worker whose manners can be chosen, with them: `dies`, `--handler`, `50ms`.
pub fn manners(arguments: &[&str]) -> Vec<OsString> {
    let program = built("manners").into();
    iter::once(program).chain(arguments.iter().map(OsString::from)).collect()
}

/// The program of the example with this name.
pub fn example(name: &str) -> PathBuf {
    built(name)
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

/// The same in C.
pub fn http_c() -> Vec<OsString> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| {
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]);
        compiled(gcc, "http.c", "http-c")
    });
    vec![path.into()]
}

/// The same in Go; none where there is no Go.
pub fn http_go() -> Option<Vec<OsString>> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let path = BUILT.get_or_init(|| {
        if Command::new("go").arg("version").output().is_err() {
            eprintln!("there is no go, so nothing is tested with it; install golang-go");
            return None;
        }
        let mut go = Command::new("go");
        // It needs neither a module nor a network nor a home.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
        go.env("GOCACHE", cache).env("GOPROXY", "off").env("GOTOOLCHAIN", "local").arg("build");
        Some(compiled(go, "http.go", "http-go"))
    });
    path.as_ref().map(|path| vec![path.into()])
}

/// Every worker in a compiled language that checks all that it is given.
pub fn strict_readers() -> Vec<Vec<OsString>> {
    [Some(http_c()), http_go()].into_iter().flatten().collect()
}

/// Has a compiler make a program of an example, beside the one that other tests may be running.
fn compiled(mut compiler: Command, name: &str, program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
    let unfinished = path.with_extension(process::id().to_string());
    let output = compiler.arg("-o").arg(&unfinished).arg(source(name)).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {compiler:?}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, &path).expect("the program");
    path
}

/// Cargo builds the examples before it runs these tests, beside the binary.
fn built(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_shepherd"));
    let path = binary.with_file_name("examples").join(name);
    assert!(path.exists(), "there is no `{}`; `cargo build --examples`", path.display());
    path
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}
