//! nginx in front of a service with a port a slot: it includes the file that shepherd keeps, and is
//! reloaded when that changes. No request through it may fail.

use std::{env, fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use nix::sys::signal::Signal;

use crate::harness::{Address, Daemon, Home, Kind, Load, Report, get, http_rust};

/// Where nginx listens. In a network of our own nobody else wants it.
const FRONT: u16 = 8000;
/// The port of slot 0.
const FIRST: u16 = 8001;
/// Workers at first.
const WORKERS: usize = 4;
/// Reloads of the service unless RELOADS says otherwise.
const RELOADS: u32 = 20;
/// How many workers are wanted after that, one after the other.
const SCALES: [usize; 4] = [3, 2, 3, 4];
/// Answers after each reload and change of scale.
const ANSWERS: u64 = 100;

/// What clients saw: on a connection for each request, and on connections that are kept.
pub struct Seen {
    pub new: Report,
    pub kept: Report,
    /// How often nginx was reloaded.
    pub told: usize,
}

pub fn run() -> Seen {
    let home = Home::new();
    let directory = home.directory();
    // nginx's workers are nobody, and find their temporary directories below it.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).expect("our directory");
    let config = directory.join("nginx.conf");
    let upstreams = directory.join("web.upstreams");
    let text = CONFIG.replace("HERE", &directory.display().to_string());
    fs::write(&config, text.replace("FRONT", &FRONT.to_string())).expect("a file");

    // Before there is an nginx its reload fails, which is told and tried again.
    let reload = format!("nginx -s reload -c {}", config.display());
    let daemon = Daemon::run()
        .home(&home)
        .workers(WORKERS)
        .listen(format!("127.0.0.1:{FIRST}+{{slot}}"))
        .args(["--upstreams", &format!("nginx:{}", upstreams.display())])
        .args(["--upstreams-reload", &reload])
        .command(http_rust())
        .start();
    wait_servers(&daemon, &upstreams, WORKERS);
    let nginx = |signal: &str| {
        let status = Command::new("nginx").arg("-c").arg(&config).args(["-s", signal]).status();
        assert!(status.expect("nginx runs").success(), "nginx -s {signal}");
    };
    let status = Command::new("nginx").arg("-c").arg(&config).status();
    assert!(status.expect("nginx runs").success(), "nginx does not take its configuration");
    let front = Address::from((Ipv4Addr::LOCALHOST, FRONT));
    daemon.eventually("an answer through nginx", || get(front.clone(), "/").ok());

    let new = Load::start(&front, [(Kind::New, 3)]);
    let kept = Load::start(&front, [(Kind::kept_alive(), 3)]);
    new.wait_ok(ANSWERS);
    let reloads = env::var("RELOADS").map_or(RELOADS, |text| text.parse().expect("a number"));
    for generation in 2..=reloads + 1 {
        daemon.signal(Signal::SIGHUP);
        let generation = generation.to_string();
        daemon.eventually("the new generation alone", || {
            let workers = daemon.worker_processes();
            let new = |it: &&_| is_of(it, &generation);
            (workers.len() == WORKERS && workers.iter().filter(new).count() == WORKERS)
                .then_some(())
        });
        new.wait_ok(ANSWERS);
    }
    for wanted in SCALES {
        let before = daemon.workers().len();
        let signal = if wanted < before { Signal::SIGTTOU } else { Signal::SIGTTIN };
        daemon.signal(signal);
        wait_servers(&daemon, &upstreams, wanted);
        daemon.wait_workers(wanted);
        new.wait_ok(ANSWERS);
    }
    let (new, kept) = (new.stop(), kept.stop());
    if new.failures_total() > 0 {
        daemon.fail(&format!("requests through nginx failed\n{new}"));
    }
    // It retries on another server what it cannot connect, so that alone would show nothing.
    let log = fs::read_to_string(directory.join("nginx.log")).expect("nginx has a log");
    let told = log.lines().filter(|line| line.ends_with(": reconfiguring")).count();
    assert!(told >= SCALES.len(), "nginx was reloaded {told} times");

    let status = daemon.stop();
    assert_eq!(status.code(), Some(0), "the daemon ended with {status}");
    let text = fs::read_to_string(&upstreams).expect("the file stays");
    assert!(text.contains(&format!("server 127.0.0.1:{FIRST} down;")), "{text}");
    // Such a file is one that it takes.
    nginx("reload");
    nginx("stop");
    let pid = directory.join("nginx.pid");
    crate::harness::eventually("nginx to be gone", || (!pid.exists()).then_some(()));
    Seen { new, kept, told }
}

fn is_of(worker: &crate::harness::WorkerProcess, generation: &str) -> bool {
    worker.generation.as_deref() == Some(generation)
}

#[track_caller]
fn wait_servers(daemon: &Daemon, upstreams: &Path, count: usize) {
    daemon.eventually(&format!("{count} servers in the file"), || {
        let text = fs::read_to_string(upstreams).ok()?;
        let servers = text.lines().filter(|line| line.starts_with("server 127.0.0.1:"));
        (servers.count() == count).then_some(())
    });
}

/// Nothing is retried on another server but what nginx retries by itself.
const CONFIG: &str = "\
pid HERE/nginx.pid;
error_log HERE/nginx.log notice;
worker_processes 2;
events {}
http {
    access_log off;
    client_body_temp_path HERE/body;
    proxy_temp_path HERE/proxy;
    fastcgi_temp_path HERE/fastcgi;
    uwsgi_temp_path HERE/uwsgi;
    scgi_temp_path HERE/scgi;
    upstream web { include HERE/web.upstreams; }
    server {
        listen 127.0.0.1:FRONT backlog=4096;
        location / { proxy_pass http://web; }
    }
}
";
