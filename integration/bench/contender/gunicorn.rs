//! gunicorn, and gunicorn under shepherd: there each worker is a gunicorn of its own with one worker,
//! since gunicorn takes sockets in its arbiter only.

use std::ffi::OsString;

use super::{Contender, Program, Running, Says, hang_up, place::Place};
use crate::harness::Port;

/// What is served, for a place.
pub const APPLICATION: (&str, &str) = ("app.py", include_str!("../programs/app.py"));

/// With as many workers as are asked for.
pub struct Gunicorn;

impl Contender for Gunicorn {
    fn name(&self) -> &'static str {
        "gunicorn"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "gunicorn", from: "pip install gunicorn" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let mut command = command(workers);
        command.extend(["--bind".to_owned(), format!("127.0.0.1:{port}")].map(Into::into));
        Place::new(&[APPLICATION]).run(&command)
    }

    fn says_ready(&self, _running: &Running, _workers: usize) -> Says {
        Says::Nothing
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(hang_up)
    }
}

/// With threads, since its other workers keep no connection.
pub fn command(workers: usize) -> Vec<OsString> {
    let workers = workers.to_string();
    let words = ["gunicorn", "--workers", &workers, "--worker-class", "gthread"];
    let more = ["--threads", "16", "--keep-alive", "60", "--log-level", "warning", "app:app"];
    words.iter().chain(&more).map(|word| (*word).into()).collect()
}
