//! PM2 in its cluster mode, in the foreground as in a container.

use super::{
    Contender, Program, Running, Says,
    place::{Place, unprivileged},
};
use crate::harness::Port;

/// `pm2-runtime` around the example worker in Node.
pub struct Pm2;

impl Contender for Pm2 {
    fn name(&self) -> &'static str {
        "PM2"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "pm2-runtime", from: "npm install --global pm2" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let applications = format!(
            r#"{{"apps": [{{"name": "http", "script": "main.js", "instances": {workers},
                "exec_mode": "cluster", "env": {{"ADDRESS": "127.0.0.1:{port}"}}}}]}}"#
        );
        let program = include_str!("../../../examples/http.js");
        // A worker's arguments begin with those of pm2-runtime itself.
        let main = "process.argv[2] = process.env.ADDRESS;\nrequire('./http.js');\n";
        let files = [("http.js", program), ("main.js", main), ("apps.json", &applications)];
        let place = Place::new(&files);
        place.run(&["pm2-runtime", "start", "apps.json"].map(Into::into))
    }

    fn says_ready(&self, _running: &Running, _workers: usize) -> Says {
        Says::Nothing
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(|running| {
            let words = unprivileged(&["pm2", "reload", "http"].map(Into::into));
            let client = running.supervisor.builder().binary(&words[0]).start_other(&words[1..]);
            client.wait_exit();
        })
    }
}
