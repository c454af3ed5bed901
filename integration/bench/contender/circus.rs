//! circus, which holds the socket and hands it to workers by a number on their command line.

use super::{
    Contender, Program, Running, Says,
    place::{Place, unprivileged},
};
use crate::harness::{Port, http_c};

/// `circusd` around the example worker in C.
pub struct Circus;

impl Contender for Circus {
    fn name(&self) -> &'static str {
        "circus"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "circusd", from: "pip install circus" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        // What systemd would do: the number of the descriptor in the place that is agreed on.
        let worker = "exec 3<&$1; [ $1 = 3 ] || eval \"exec $1<&-\"\n\
            LISTEN_PID=$$ LISTEN_FDS=1 exec ./http\n";
        let place = Place::new(&[("worker.sh", worker)]);
        place.copy(&http_c()[0], "http");
        let directory = place.path("");
        let directory = directory.display();
        let configuration = format!(
            "[circus]
endpoint = ipc://{directory}/endpoint
pubsub_endpoint = ipc://{directory}/events
[watcher:web]
cmd = /bin/sh worker.sh $(circus.sockets.web)
working_dir = {directory}
numprocesses = {workers}
use_sockets = True
copy_env = True
[socket:web]
host = 127.0.0.1
port = {port}
backlog = 4096
"
        );
        place.write("circus.ini", &configuration);
        place.run(&["circusd", "circus.ini"].map(Into::into))
    }

    fn says_ready(&self, _running: &Running, _workers: usize) -> Says {
        Says::Nothing
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(|running| {
            let endpoint = running.supervisor.builder().home_directory().join("place/endpoint");
            let endpoint = format!("ipc://{}", endpoint.display());
            let command = ["circusctl", "--endpoint", &endpoint, "reload", "web"];
            let words = unprivileged(&command.map(Into::into));
            let client = running.supervisor.builder().binary(&words[0]).start_other(&words[1..]);
            client.wait_exit();
        })
    }
}
