//! Messages: between workers of any language, from and to shepherd, and what becomes of it when somebody
//! sends nonsense, too much, or does not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::{Value, json};
use shepherd::control::wire;

use crate::{
    cli::{ends, shepherd, web},
    control::{client, status},
    given::kill,
    harness::{Builder, Daemon, Port, environment, free_port, get, http_rust},
    node::has_node,
};

/// A worker in Python. It prints each line that it hears, and does what the data of one says: `say` is
/// sent as a message, `raw` as it is, `flood` so many times, `sleep` for that long, `end`.
const PYTHON: &str = r#"
import json, os, socket, sys, time
channel = socket.socket(fileno=int(os.environ["SHEPHERD_CHANNEL_FD"]))
me = os.environ["SHEPHERD_WORKER"]
for line in channel.makefile("r", encoding="utf-8"):
    data = json.loads(line)["data"]
    if data != "quiet":
        print(f"worker {me} heard {line}", end="", flush=True)
    if not isinstance(data, dict):
        continue
    if "say" in data:
        channel.sendall((json.dumps(data["say"]) + "\n").encode())
    if "raw" in data:
        channel.sendall(data["raw"].encode("latin1") * data.get("times", 1))
    if "sleep" in data:
        time.sleep(data["sleep"])
    if "end" in data:
        sys.exit(data["end"])
"#;

/// One in the language of a shell: it prints what it hears and answers to all.
const SHELL: &str = r#"
while read -r line <&"$SHEPHERD_CHANNEL_FD"; do
    echo "shell heard $line"
    echo '{"to": "service:py", "data": "from a shell"}' >&"$SHEPHERD_CHANNEL_FD"
done
"#;

/// Python workers with messages.
fn python(workers: usize) -> Builder {
    Daemon::run()
        .workers(workers)
        .args(["--messages", "--ready", "alive:10ms", "--logs", "inherit"])
        .command(["python3", "-c", PYTHON])
}

/// Has shepherd send a worker data.
#[track_caller]
fn send(daemon: &Daemon, worker: u64, data: &Value) {
    let (worker, data) = (worker.to_string(), data.to_string());
    ends(daemon.client(["send", &worker, &data, "--name", "web"]), 0);
}

/// Waits until a worker has heard a message.
#[track_caller]
fn wait_heard(daemon: &Daemon, worker: u64, message: &Value) {
    let begin = format!("worker {worker} heard ");
    let is_it = |line: &str| {
        let heard = line.strip_prefix(&begin).and_then(|text| serde_json::from_str(text).ok());
        heard.is_some_and(|heard: Value| heard == *message)
    };
    daemon.wait_line(is_it, &format!("worker {worker} hears {message}"));
}

/// What was counted of the messages of each worker of the first service.
#[track_caller]
fn counted(daemon: &Daemon) -> BTreeMap<u64, wire::Messages> {
    let workers = status(&client(daemon, "web")).services.remove(0).workers;
    workers.into_iter().filter_map(|worker| Some((worker.id, worker.messages?))).collect()
}

/// Waits until that of one is so.
#[track_caller]
fn wait_counted(daemon: &Daemon, worker: u64, what: &str, is_so: impl Fn(wire::Messages) -> bool) {
    daemon.eventually(what, || counted(daemon).get(&worker).copied().filter(|of| is_so(*of)));
}

#[test]
fn shepherd_sends_a_worker_what_somebody_asks_it_to() {
    let daemon = web(python(2));
    let output = shepherd(&daemon, "send 2 [1.50,\"\u{e4}\",12345678901234567890123]", 0);
    assert_eq!(output.stdout, "worker 2 (web.1): message queued\n");
    let line = daemon.wait_line(|line| line.starts_with("worker 2 heard "), "the message");
    let expected = r#"{"from":"supervisor","data":[1.50,"ä",12345678901234567890123]}"#;
    assert_eq!(line, format!("worker 2 heard {expected}"));
    let output = ends(daemon.client(["send", "1", "{\n\"n\":\n1}", "--json", "--name", "web"]), 0);
    let sent: wire::Sent = serde_json::from_str(&output.stdout).expect("JSON");
    let expected = wire::Sent { worker: 1, service: "web".to_owned(), slot: 0, waiting: 0 };
    assert_eq!(sent, expected);
    wait_heard(&daemon, 1, &json!({"from": "supervisor", "data": {"n": 1}}));
    wait_counted(&daemon, 1, "a message", |of| of.received == 1);
    for (words, code, told) in [
        ("send 9 1", 1, "there is no worker 9; `shepherd status` shows those there are"),
        ("send 1 text", 2, "it is no JSON"),
        ("send web.0 1", 2, "is no worker's number"),
        ("send 1", 2, "required arguments"),
    ] {
        let output = shepherd(&daemon, words, code);
        assert!(output.stderr.contains(told), "{words}: {output:#?}");
    }
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let output = shepherd(&daemon, &format!("send 1 {deep}"), 2);
    assert!(output.stderr.contains("nested more than 128 deep"), "{output:#?}");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn without_messages_there_is_no_channel_and_nobody_is_sent_any() {
    let daemon = web(Daemon::run()
        .listen(free_port())
        .env("SHEPHERD_CHANNEL_FD", "3")
        .args(["--env", "SHEPHERD_CHANNEL_FD=4"])
        .command(http_rust()));
    let pid = daemon.workers()[0];
    assert_eq!(environment(pid).get("SHEPHERD_CHANNEL_FD"), None);
    assert_eq!(counted(&daemon), BTreeMap::new());
    let output = shepherd(&daemon, "send 1 1", 1);
    assert!(
        output.stderr.contains("it has no channel; run `web` with `--messages`"),
        "{output:#?}"
    );
    assert!(daemon.stop().success());
}

#[test]
fn the_channel_is_behind_the_sockets_and_none_of_them() {
    let (one, two) = (free_port(), free_port());
    let program = "import os, socket\n\
        number = int(os.environ['SHEPHERD_CHANNEL_FD'])\n\
        channel = socket.socket(fileno=number)\n\
        print(os.environ['LISTEN_FDS'], number, channel.family.name, channel.type.name, \
        channel.getblocking(), flush=True)\n\
        channel.sendall(b'{\"to\": \"worker:1\", \"data\": \"to itself\"}')\n\
        channel.shutdown(socket.SHUT_WR)\n\
        print(channel.makefile('r').readline(), flush=True)\n\
        socket.socket(fileno=3).accept()";
    let daemon = web(Daemon::run()
        .listen(&one)
        .listen(&two)
        .args(["--messages", "--ready", "alive:10ms"])
        .command(["python3", "-c", program]));
    daemon.wait_line(|line| line == "2 5 AF_UNIX SOCK_STREAM True", "descriptors 3, 4 and 5");
    // A message at the very end needs no end of a line, and who speaks no more still hears.
    daemon.wait_line(|line| line.contains("\"data\":\"to itself\""), "the message");
    assert!(daemon.stop().success());
}

/// A daemon that runs this file.
fn file(text: &str) -> Daemon {
    file_with(text, &[])
}

/// The same with more programs beside it.
fn file_with(text: &str, programs: &[(&str, &str)]) -> Daemon {
    let builder = Daemon::run();
    let directory = builder.home_directory().to_owned();
    for (name, program) in [("py", PYTHON), ("sh", SHELL)].iter().chain(programs) {
        fs::write(directory.join(name), program).expect("written");
    }
    let path = directory.join("shepherd.yaml");
    fs::write(&path, text).expect("written");
    let daemon = web(builder.args(["-c".as_ref(), path.as_os_str()]));
    // What it waits for is to be ready too, and is told of in other words.
    daemon.wait_line(
        |line| line.contains("web: ") && line.contains("worker") && line.ends_with("ready"),
        "all of web are ready",
    );
    daemon
}

#[test]
fn workers_of_any_language_and_service_send_each_other_messages() {
    let daemon = file(
        "services:\n\
         \x20 py: {command: python3 py, workers: 2, messages: true, ready: alive:10ms}\n\
         \x20 web: {command: sh sh, messages: true, ready: alive:10ms, depends_on: py}\n\
         \x20 mute: {command: sleep 1000, ready: alive:10ms}\n",
    );
    daemon.wait_line(|line| line.contains("mute: 1 worker ready"), "all are ready");
    let workers: BTreeMap<String, u64> = status(&client(&daemon, "web"))
        .services
        .into_iter()
        .flat_map(|it| {
            it.workers.into_iter().map(move |of| (format!("{}.{}", it.name, of.slot), of.id))
        })
        .collect();
    let (one, two, shell, mute) =
        (workers["py.0"], workers["py.1"], workers["web.0"], workers["mute.0"]);
    let say = |to: &str, data: &Value| json!({"say": {"to": to, "data": data}});
    let from_one = |data: &Value| json!({"from": format!("worker:{one}"), "service": "py", "slot": 0, "data": data});
    for (to, number) in
        [("all", 1), ("service:py", 2), ("slot:1", 3), (&*format!("worker:{two}"), 4)]
    {
        send(&daemon, one, &say(to, &json!({"n": number})));
        wait_heard(&daemon, two, &from_one(&json!({"n": number})));
    }
    // To all went to the shell too, which has told all of `py`.
    daemon.wait_line(
        |line| {
            line.starts_with("shell heard {\"from\":\"worker:1\",\"service\":\"py\",\"slot\":0,")
        },
        "the shell hears",
    );
    let from_shell = json!({
        "from": format!("worker:{shell}"), "service": "web", "slot": 0, "data": "from a shell",
    });
    wait_heard(&daemon, one, &from_shell);
    wait_heard(&daemon, two, &from_shell);
    send(&daemon, two, &say("service:web/slot:0", &json!("again")));
    daemon.wait_line(
        |line| line.starts_with("shell heard ") && line.contains("again"),
        "the shell hears again",
    );
    assert_eq!(
        daemon
            .count_lines(|line| line.starts_with(&format!("worker {one} heard "))
                && line.contains("\"n\":1}}")),
        0,
        "to itself"
    );
    // Who takes none gets none.
    for to in [format!("worker:{mute}"), "service:mute".to_owned(), "worker:99".to_owned()] {
        send(&daemon, one, &say(&to, &json!(1)));
    }
    wait_counted(&daemon, one, "what nobody gets", |of| of.undeliverable == 3 && of.sent == 7);
    assert!(daemon.stop().success());
}

/// One in Node, which does what `say` asks for.
const NODE: &str = r"
process.on('message', (message) => {
  console.log(`node ${process.env.SHEPHERD_WORKER} heard ${JSON.stringify(message)}`);
  if (message.data && message.data.say) process.send(message.data.say);
  if (message.data && message.data.flood) {
    for (let i = 0; i < message.data.flood; i++) process.send({to: 'service:py', data: 'quiet'});
  }
});
console.log(`node ${process.env.SHEPHERD_WORKER} has ${process.env.SHEPHERD_CHANNEL_FD}`);
";

#[test]
fn programs_of_node_have_messages_by_process_send() {
    if !has_node() {
        return;
    }
    for handoff in ["node", "auto"] {
        let port = free_port();
        let program = format!(
            "require('node:http').createServer(() => {{}}).listen({});{NODE}",
            if handoff == "node" { port.to_string() } else { "{fd: 3}".to_owned() }
        );
        let daemon = file_with(
            &format!(
                "services:\n\
                 \x20 py: {{command: python3 py, messages: true, ready: alive:10ms}}\n\
                 \x20 web: {{command: node app.js, workers: 2, messages: true, depends_on: py, \
                 handoff: {handoff}, listen: {port}}}\n"
            ),
            &[("app.js", &program)],
        );
        daemon.wait_line(|line| line == "node 2 has undefined", "no other channel");
        let heard = |worker: u64, message: &Value| {
            let begin = format!("node {worker} heard ");
            let is_it = |line: &str| {
                let text = line.strip_prefix(&begin);
                text.and_then(|text| serde_json::from_str::<Value>(text).ok()).as_ref()
                    == Some(message)
            };
            daemon.wait_line(is_it, &format!("node {worker} hears {message}"));
        };
        // From shepherd, from Node to Python and to Node, and from Python to all of Node.
        send(&daemon, 2, &json!({"say": {"to": "service:py", "data": "\u{4f60}\u{597d}"}}));
        let from_node = json!({
            "from": "worker:2", "service": "web", "slot": 0, "data": "\u{4f60}\u{597d}",
        });
        wait_heard(&daemon, 1, &from_node);
        send(&daemon, 3, &json!({"say": {"to": "slot:0", "data": [1]}}));
        heard(2, &json!({"from": "worker:3", "service": "web", "slot": 1, "data": [1]}));
        send(&daemon, 1, &json!({"say": {"to": "service:web", "data": "both"}}));
        for worker in [2, 3] {
            heard(worker, &json!({"from": "worker:1", "service": "py", "slot": 0, "data": "both"}));
        }
        // It subscribes, and hears of its own kind.
        send(&daemon, 2, &json!({"say": {"to": "supervisor", "data": {"subscribe": "workers"}}}));
        heard(
            2,
            &json!({"from": "supervisor", "data": {
                "event": "ready", "worker": "worker:3", "service": "web", "slot": 1, "generation": 1,
            }}),
        );
        send(&daemon, 3, &json!({"flood": 20_000}));
        let of_three = || {
            let services = status(&client(&daemon, "web")).services;
            let workers = services.into_iter().flat_map(|service| service.workers);
            workers.into_iter().find(|worker| worker.id == 3)?.messages
        };
        daemon.eventually("all are heard", || of_three().filter(|of| of.sent == 20_001));
        // What is none is counted, and harms nobody.
        send(&daemon, 3, &json!({"say": {"type": "something of its own"}}));
        daemon.eventually("a mistake", || of_three().filter(|of| of.not_understood == 1));
        shepherd(&daemon, "reload web", 0);
        send(&daemon, 4, &json!("on"));
        heard(4, &json!({"from": "supervisor", "data": "on"}));
        assert!(daemon.stop().success());
        daemon.assert_nothing_left();
    }
}

#[test]
fn who_subscribes_hears_of_workers_through_a_reload() {
    let daemon = file(
        "services:\n\
         \x20 py: {command: python3 py, messages: true, ready: alive:10ms}\n\
         \x20 web: {command: python3 py, workers: 2, messages: true, ready: alive:10ms, \
         depends_on: py}\n",
    );
    let subscribe = json!({"say": {"to": "supervisor", "data": {"subscribe": "workers"}}});
    send(&daemon, 1, &subscribe);
    let event = |event: &str, worker: u64, slot: u32, generation: u64| {
        json!({"from": "supervisor", "data": {
            "event": event, "worker": format!("worker:{worker}"), "service": "web", "slot": slot,
            "generation": generation,
        }})
    };
    wait_heard(&daemon, 1, &event("ready", 2, 0, 1));
    wait_heard(&daemon, 1, &event("ready", 3, 1, 1));
    // One that ends by itself, and what it said right before.
    let say = json!({"say": {"to": "worker:1", "data": "last words"}, "end": 3});
    send(&daemon, 3, &say);
    wait_heard(&daemon, 1, &event("ended", 3, 1, 1));
    let lines = daemon.lines();
    let place = |words: &str| {
        let heard = |text: &str| text.starts_with("worker 1 heard ") && text.contains(words);
        lines.iter().position(|line| heard(&line.text)).expect("it was heard")
    };
    assert!(place("\"last words\"") < place("\"event\":\"ended\""), "{lines:#?}");
    let is_stopping = |line: &str| line.contains("\"event\":\"stopping\"");
    assert_eq!(daemon.count_lines(is_stopping), 0, "nobody asked it to");
    wait_heard(&daemon, 1, &event("ready", 4, 1, 1));
    shepherd(&daemon, "reload web", 0);
    for (slot, old, new) in [(0, 2, 5), (1, 4, 6)] {
        wait_heard(&daemon, 1, &event("ready", new, slot, 2));
        wait_heard(&daemon, 1, &event("stopping", old, slot, 1));
        wait_heard(&daemon, 1, &event("ended", old, slot, 1));
    }
    // The next generation has channels of its own, and hears the same if it wants to.
    send(&daemon, 5, &subscribe);
    wait_heard(&daemon, 5, &event("ready", 6, 1, 2));
    send(&daemon, 1, &json!({"say": {"to": "service:web", "data": "to both"}}));
    let both = json!({"from": "worker:1", "service": "py", "slot": 0, "data": "to both"});
    wait_heard(&daemon, 5, &both);
    wait_heard(&daemon, 6, &both);
    assert!(daemon.stop().success());
}

#[test]
fn nonsense_is_counted_told_a_few_times_and_harms_nobody() {
    let daemon = web(python(2));
    let raw = |text: &str, times: u64| json!({"raw": text, "times": times});
    let long = format!("{}{}", r#"{"to": "all", "data": ""#, "x".repeat(1000));
    let mut wrong = 0;
    for (text, times) in [
        ("\u{ff}\u{fe}\n", 1),
        ("{\"to\": \"all\"}\n", 1),
        ("{\"to\": \"everybody\", \"data\": 1}\n", 1),
        ("\n\r\n  \n", 1),
        ("no JSON\n", 50_000),
    ] {
        send(&daemon, 1, &raw(text, times));
        wrong += if text.starts_with('\n') { 0 } else { times };
    }
    // A line of half a megabyte: it is one mistake, and the next line is heard.
    send(&daemon, 1, &raw(&long, 500));
    send(&daemon, 1, &raw("\n", 1));
    wrong += 1;
    send(&daemon, 1, &json!({"say": {"to": "slot:1", "data": "still here"}}));
    daemon.wait_line(
        |line| line.starts_with("worker 2 heard ") && line.contains("still here"),
        "a message after all of it",
    );
    assert_eq!(counted(&daemon)[&1].not_understood, wrong);
    let told = |line: &str| line.contains("worker 1 (web) sent a message");
    assert_eq!(daemon.count_lines(told), 3);
    daemon.wait_line(|line| told(line) && line.ends_with("saying so no more"), "the last of these");
    assert_eq!(daemon.workers().len(), 2);
    assert!(daemon.stop().success());
}

#[test]
fn a_worker_that_does_not_read_loses_messages_and_holds_up_nobody() {
    let daemon = web(python(3).args(["--admin", "0"]));
    let events = daemon.start_client(["events", "--json", "--since", "0", "--name", "web"]);
    // Nobody sleeps that long: it is told to end below.
    send(&daemon, 2, &json!({"sleep": 100_000}));
    let text = format!("{}\n", json!({"to": "slot:1", "data": "x".repeat(1000)}));
    send(&daemon, 1, &json!({"raw": text, "times": 20_000}));
    wait_counted(&daemon, 1, "all are heard", |of| of.sent == 20_000);
    let of_two = counted(&daemon)[&2];
    assert!(of_two.dropped > 10_000, "{of_two:?}");
    assert_eq!(of_two.received + of_two.waiting + of_two.dropped, 20_001, "{of_two:?}");
    assert!(of_two.waiting * 1000 < 1 << 20, "{of_two:?}");
    daemon.wait_line(
        |line| line.contains("worker 2 (web.1) does not read its messages"),
        "it is told",
    );
    let shown = shepherd(&daemon, "status", 0).stdout;
    assert!(shown.contains("messages"), "{shown}");
    // Others have theirs at once.
    send(&daemon, 1, &json!({"say": {"to": "slot:2", "data": "hello"}}));
    daemon.wait_line(
        |line| line.starts_with("worker 3 heard ") && line.contains("hello"),
        "another hears",
    );
    shepherd(&daemon, "kill 2 KILL", 0);
    daemon.wait_line(|line| line.contains("worker 4 (web.1) is ready"), "the next one");
    assert!(daemon.stop().success());
    let events = ends(events.wait(), 0).stdout;
    assert!(events.contains("\"kind\":\"messages-dropped\""), "{events}");
}

#[test]
fn a_worker_that_reads_late_gets_what_waited_and_it_is_told_what_it_missed() {
    let daemon = web(python(2));
    send(&daemon, 2, &json!({"sleep": 2}));
    let text = format!("{}\n", json!({"to": "slot:1", "data": "quiet"}));
    send(&daemon, 1, &json!({"raw": text, "times": 60_000}));
    daemon.wait_line(
        |line| line.contains("worker 2 (web.1) has read its messages; "),
        "it has read what waited",
    );
    wait_counted(&daemon, 1, "all are heard", |of| of.sent == 60_000);
    wait_counted(&daemon, 2, "all is read", |of| of.waiting == 0);
    let of_two = counted(&daemon)[&2];
    assert_eq!(of_two.received + of_two.dropped, 60_001, "{of_two:?}");
    assert!(of_two.dropped > 0, "{of_two:?}");
    send(&daemon, 2, &json!("awake"));
    wait_heard(&daemon, 2, &json!({"from": "supervisor", "data": "awake"}));
    assert!(daemon.stop().success());
}

#[test]
fn floods_from_all_sides_leave_the_daemon_able_to_act() {
    let daemon = web(python(4));
    let text = format!("{}\n", json!({"to": "all", "data": "quiet"}));
    let flood = json!({"raw": text, "times": 20_000}).to_string();
    for worker in ["1", "2", "3", "4"] {
        // The last ones have much to read by then, from those that began.
        let told = || daemon.client(["send", worker, &flood, "--name", "web"]).status.success();
        daemon.eventually("it is told", || told().then_some(()));
    }
    // Signals and clients have their turn in between.
    shepherd(&daemon, "kill 3 KILL", 0);
    daemon.wait_line(|line| line.contains("worker 5 (web.2) is ready"), "the next one");
    for worker in [1, 2, 4] {
        wait_counted(&daemon, worker, "all are heard", |of| of.sent == 20_000);
    }
    shepherd(&daemon, "reload", 0);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_channel_ends_with_its_worker_and_not_with_whoever_holds_it_besides() {
    // The main process leaves a child behind that has the channel and goes on writing to it, to
    // nobody: who is to hear of its end must not have too much to read.
    let program = format!(
        "import os, signal, socket, sys, time\n\
         if os.environ['SHEPHERD_WORKER'] == '2' and os.fork() == 0:\n\
         \x20   signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         \x20   channel = socket.socket(fileno=int(os.environ['SHEPHERD_CHANNEL_FD']))\n\
         \x20   while True:\n\
         \x20       channel.sendall(b'{{\"to\": \"worker:99\", \"data\": \"quiet\"}}\\n')\n\
         {PYTHON}"
    );
    let daemon = web(Daemon::run()
        .workers(2)
        .args(["--messages", "--ready", "alive:10ms"])
        .command(["python3", "-c", &program]));
    let subscribe = json!({"say": {"to": "supervisor", "data": {"subscribe": "workers"}}});
    send(&daemon, 1, &subscribe);
    wait_counted(&daemon, 2, "a flood of the child", |of| of.sent > 1000);
    send(&daemon, 2, &json!({"end": 0}));
    daemon.wait_line(
        |line| {
            line.starts_with("worker 1 heard ")
                && line.contains("\"event\":\"ended\",\"worker\":\"worker:2\"")
        },
        "its end",
    );
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_worker_that_closes_its_channel_lives_on() {
    let program = "import os, signal, time\n\
        os.close(int(os.environ['SHEPHERD_CHANNEL_FD']))\n\
        print('closed', flush=True)\n\
        signal.pause()";
    let daemon = web(Daemon::run()
        .args(["--messages", "--ready", "alive:10ms"])
        .command(["python3", "-c", program]));
    daemon.wait_line(|line| line == "closed", "it has closed it");
    daemon.eventually("that it takes none", || {
        let output = daemon.client(["send", "1", "1", "--name", "web"]);
        (output.status.code() == Some(1)).then_some(())
    });
    assert_eq!(daemon.count_lines(|line| line.contains("restarting")), 0);
    assert!(daemon.stop().success());
}

#[test]
fn messages_come_and_go_with_generations() {
    let builder = Daemon::run();
    let directory = builder.home_directory().to_owned();
    fs::write(directory.join("py"), PYTHON).expect("written");
    let path = directory.join("shepherd.yaml");
    let write = |messages: bool| {
        let program = if messages { "python3 py" } else { "sleep 1000" };
        let text = format!(
            "services:\n  web: {{command: {program}, messages: {messages}, ready: alive:10ms}}\n"
        );
        fs::write(&path, text).expect("written");
    };
    write(false);
    let daemon = web(builder.args(["-c".as_ref(), path.as_os_str()]));
    shepherd(&daemon, "send 1 1", 1);
    write(true);
    let plan =
        daemon.client(["plan".as_ref(), path.as_os_str(), "--name".as_ref(), "web".as_ref()]);
    assert!(ends(plan, 0).stdout.contains("messages"), "it is told that it differs");
    shepherd(&daemon, "reload", 0);
    send(&daemon, 2, &json!("on"));
    wait_heard(&daemon, 2, &json!({"from": "supervisor", "data": "on"}));
    shepherd(&daemon, "rollback", 0);
    let output = shepherd(&daemon, "send 3 1", 1);
    assert!(output.stderr.contains("it has no channel"), "{output:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn the_example_keeps_one_count_for_four_workers() {
    let port: Port = free_port();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/counter");
    let programs = Path::new(env!("CARGO_BIN_EXE_shepherd")).with_file_name("examples");
    let daemon = Daemon::run()
        .directory(&directory)
        .env("PORT", port.to_string())
        .env("PROGRAMS", programs)
        .start();
    daemon.wait_line(|line| line.contains("web: 4 workers ready"), "four workers");
    let mut pids = BTreeSet::new();
    for expected in 1..=40 {
        let response = get(&port, "/").expect("an answer");
        assert_eq!(response.version, expected.to_string());
        pids.insert(response.pid);
        if expected == 20 {
            kill(response.pid);
            daemon.wait_line(
                |line| line.starts_with("worker:") && line.contains(" has ended, and had counted "),
                "the agent knows of its end",
            );
        }
    }
    assert!(pids.len() > 1, "{pids:?}");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}
