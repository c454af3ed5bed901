//! nginx: as a server with workers of its own, which shepherd's C workers are compared with; and for
//! requests as what it often is, a proxy in front of a worker.

use std::ffi::OsString;

use super::{Contender, PlainLoop, Program, Running, Says, Worker, hang_up, place::Place};
use crate::{
    What,
    harness::{Port, free_port},
};

/// Its own workers, which answer what the example workers do.
pub struct Nginx;

/// In front of a bare worker in C, to which it keeps its connections.
pub struct NginxInFront;

const NEEDS: &[Program] = &[Program { name: "nginx", from: "apt install nginx-light" }];

impl Contender for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn needs(&self) -> &'static [Program] {
        NEEDS
    }

    fn measures(&self) -> &'static [What] {
        // Its workers answer without a program, so their requests are not compared.
        &[What::Respawn, What::Start, What::Reload, What::Memory]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        serve(workers, port, "", r#"return 200 "nginx $pid - -\n";"#)
    }

    fn says_ready(&self, _running: &Running, _workers: usize) -> Says {
        Says::Nothing
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(hang_up)
    }
}

impl Contender for NginxInFront {
    fn name(&self) -> &'static str {
        "nginx in front"
    }

    fn needs(&self) -> &'static [Program] {
        NEEDS
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let behind = free_port();
        let upstream = format!("upstream workers {{ server 127.0.0.1:{behind}; keepalive 64; }}");
        let location = r#"proxy_pass http://workers; proxy_http_version 1.1;
            proxy_set_header Connection "";"#;
        let bare = PlainLoop(Worker::C).start(workers, &behind);
        PlainLoop(Worker::C).says_ready(&bare, workers);
        let mut running = serve(workers, port, &upstream, location);
        running.behind.push(bare.supervisor);
        running
    }

    fn measures(&self) -> &'static [What] {
        &[What::Request]
    }

    fn says_ready(&self, _running: &Running, _workers: usize) -> Says {
        Says::Nothing
    }

    fn reload(&self) -> Option<fn(&Running)> {
        None
    }
}

fn serve(workers: usize, port: &Port, upstream: &str, location: &str) -> Running {
    let configuration = format!(
        "daemon off; pid nginx.pid; error_log stderr; worker_processes {workers};
        events {{ }}
        http {{
            access_log off; keepalive_requests 1000000000;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            {upstream}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{ {location} }}
            }}
        }}"
    );
    let place = Place::new(&[("nginx.conf", &configuration)]);
    let mut command: Vec<OsString> = vec!["nginx".into(), "-p".into(), place.path("").into()];
    command.extend(["-c", "nginx.conf", "-e", "stderr"].map(Into::into));
    place.run(&command)
}
