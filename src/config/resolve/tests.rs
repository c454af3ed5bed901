//! What each mistake looks like, and what is read where there is none.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn variables() -> Variables {
    [("PORT", "8000"), ("SECRET", "hunter2"), ("WORDS", "a: [b")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn read_text(text: &str) -> Result<FileConfig, Report> {
    let (path, shown) = (Path::new("/srv/shepherd.yaml"), "shepherd.yaml");
    read(ConfigFile { path, shown, text: text.as_bytes() }, &variables())
}

fn whole(text: &str) -> FileConfig {
    read_text(text).unwrap_or_else(|report| panic!("{text}\n{report}"))
}

/// A file with one service that is right, and these lines more.
fn service(lines: &str) -> String {
    let mut text = "services:\n  web:\n    command: ./server\n".to_owned();
    lines.lines().for_each(|line| writeln!(text, "    {line}").expect("written"));
    text
}

/// What is wrong, and the text.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn mistakes() -> Vec<(&'static str, String)> {
    let file = |what, text: &str| (what, text.to_owned());
    let service = |what, lines| (what, service(lines));
    vec![
        file("nothing", ""),
        file("only a comment", "# services:\n"),
        file("nothing but null", "---\n~\n"),
        file("a list at the top", "- web\n"),
        file("a text at the top", "services\n"),
        file("a tab", "services:\n  web:\n\tcommand: ./server\n"),
        file("a tab behind spaces", "services:\n  web:\n  \tcommand: ./server\n"),
        file("a tab behind a value", "services:\n  web:\n    command: a\n\tworkers: 2\n"),
        file("indented too little", "services:\n  web:\n    command: ./a\n   workers: 2\n"),
        file("a colon too many", "services:\n  web:\n    command: echo a: b\n"),
        file("a quote that is not closed", "services:\n  web:\n    command: \"./server\n"),
        file("a list that is not closed", "services:\n  web:\n    command: [./server\n"),
        file(
            "a bracket as an address",
            "services:\n  web:\n    command: a\n    listen: [::]:8000\n",
        ),
        file("a star as an address", "services:\n  web:\n    command: a\n    listen: *:8000\n"),
        file("an at sign", "services:\n  web:\n    command: @server\n"),
        file("an unknown escape", "services:\n  web:\n    command: \"\\d\"\n"),
        file("mustaches", "services:\n  web:\n    command: {{server}}\n"),
        file("a tag", "services:\n  web:\n    command: !env SERVER\n"),
        file("two documents", "services:\n  web:\n    command: a\n---\nservices: {}\n"),
        file("an anchor that is not there", "services:\n  web: *base\n"),
        file(
            "a merge of what is no map",
            "services:\n  a: &a\n    command: &c a\n  b:\n    <<: *c\n",
        ),
        file("a variable in a list", "services:\n  web:\n    command: [a, ${PORT}]\n"),
        file("a slot in a list", "services:\n  web:\n    command: a\n    listen: [8001+{slot}]\n"),
        file("no services", "name: web\n"),
        service("upstreams without a key", "listen: 8001+{slot}\nupstreams:\n  format: nginx"),
        service(
            "upstreams of no format",
            "listen: 8001+{slot}\nupstreams: {format: apache, path: a, reload: b}",
        ),
        service(
            "upstreams without a socket a slot",
            "listen: 8001\nupstreams: {format: nginx, path: a, reload: b}",
        ),
        service("ports for fewer slots", "listen: 65530+{slot}\nworkers: 8"),
        file("empty services", "services:\n"),
        file("a list of services", "services:\n  - command: ./server\n"),
        file("an empty map of services", "services: {}\n"),
        file("an unknown key", "servces:\n  web:\n    command: a\n"),
        file("a service's key at the top", "command: ./server\nservices: {}\n"),
        file("a name that is none", "name: a/b\nservices:\n  web shop:\n    command: a\n"),
        file("an unknown way for logs", "logs: jsn\nservices:\n  web:\n    command: a\n"),
        file("a service without a command", "services:\n  web:\n    workers: 2\n"),
        file("a service without anything", "services:\n  web:\n"),
        file("a command as the service", "services:\n  web: ./server\n"),
        file(
            "an empty command",
            "services:\n  a:\n    command: []\n  b:\n    command: \"\"\n  c:\n    command:\n",
        ),
        file("a quote in a command", "services:\n  web:\n    command: sh -c 'echo\n"),
        file("a map as a command", "services:\n  web:\n    command:\n      program: a\n"),
        service("a misspelt key", "workrs: 2"),
        service("what others call it", "cwd: /srv\ninstances: 4\nports: 80"),
        service("a key with no near name", "colour: red"),
        service("a key of the file", "logs: json"),
        service("a key twice", "workers: 2\nworkers: 3"),
        service("no number", "workers: many"),
        service("a list as a number", "workers: [2]"),
        service("too many workers", "workers: 99999"),
        service("nothing as a value", "workers:\nenv:\nlisten:"),
        service("no balance", "balance: slot"),
        service("another balance", "balance: round-robin"),
        service("slots of a unix socket", "balance: slots\nlisten: [unix:a.sock, \"unix:@b\"]"),
        service("slots without a socket", "balance: slots"),
        service("nothing that becomes of clients", "listen: 8000\non_failing: refused"),
        service("refused clients of a unix socket", "listen: unix:a.sock\non_failing: refuse"),
        service("refused clients of datagrams", "listen: udp:53\non_failing: refuse"),
        service("refused clients without a socket", "on_failing: refuse"),
        service("a time alone for drain", "drain: 10s"),
        service("keys that drain has not", "drain: {before-stop: 10s, timeout: 30s, colour: red}"),
        service("a key of drain beside it", "before_stop: 10s"),
        service("no time before the stop", "drain: {before_stop: never}"),
        service("no unit before the stop", "drain:\n  before_stop: 10"),
        service(
            "a time before the stop where all is shared",
            "listen: 8000\nbalance: shared\ndrain: {before_stop: 10s}",
        ),
        service(
            "a time before the stop with a unix socket",
            "listen: unix:a.sock\ndrain: {before_stop: 1m30s}",
        ),
        service("no word for kept-alive connections", "listen: 8000\ndrain: {keepalive: close}"),
        service(
            "kept-alive connections where all is shared",
            "listen: 8000\nbalance: shared\ndrain: {keepalive: close-idle}",
        ),
        service(
            "no time for kept-alive connections",
            "listen: 8000\ndrain: {before_stop: 0s, keepalive: close-idle}",
        ),
        service("a time before the stop without a socket", "drain: {before_stop: 10s}"),
        service("no part for a canary", "listen: 8000\nreload: {canary: 5}"),
        service("all of it for a canary", "listen: 8000\nreload: {canary: 100%, canary_for: 0s}"),
        service("a time for a canary alone", "listen: 8000\nreload:\n  canary_for: 1m"),
        service("keys that reload has not", "reload: {canary-for: 1m, surges: 2, probation: 10}"),
        service("no number of workers beside others", "reload: {surge: 101%}"),
        service("fewer than none beside others", "reload: {surge: -1}"),
        service("a key of reload beside it", "probation: 10s"),
        service(
            "a canary where all is shared",
            "listen: 8000\nbalance: shared\nreload: {canary: 5%}\ndrain: {before_stop: 10s}",
        ),
        service("a canary with a unix socket", "listen: unix:a.sock\nreload: {canary: 5%}"),
        service("a canary without a socket", "reload: {canary: 5%}"),
        service("no unit", "drain_timeout: 30\nready_timeout: 5"),
        service("a wrong unit", "drain_timeout: 30 seconds\nready_interval: 1w"),
        service("no time", "ready_timeout: 0s"),
        service("too long", "drain_timeout: 9d"),
        service("a port too high", "listen: 65536"),
        service("a path that is no socket", "listen: /run/x.sock"),
        service("a name as an address", "listen: [example.com:80, \"127.0.0.1\"]"),
        service("an unknown option", "listen: 8000,backlogg=5"),
        service("a socket without an address", "listen: {backlog: 5}"),
        service("a socket with two addresses", "listen: {port: 80, unix: /run/x.sock}"),
        service("an unknown key of a socket", "listen:\n  - port: 80\n    backlogg: 5"),
        service(
            "wrong options of a socket",
            "listen:\n  - port: 80\n    backlog: lots\n    no_delay: maybe\n    mode: \"0660\"\n    receive_buffer: [1]",
        ),
        service("a port that is an address", "listen: {port: \"127.0.0.1:80\"}"),
        service(
            "a long path",
            "listen: unix:/run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789.sock",
        ),
        service("two sockets of one name", "listen: [web=80, web=81]"),
        service("one address twice", "listen: [8000, \"127.0.0.1:8000\"]"),
        file(
            "two services at one address",
            "services:\n  web:\n    command: a\n    listen: 8000\n  admin:\n    command: b\n    listen: {port: 8000}\n",
        ),
        service("a variable that is none", "env:\n  1A: x\n  B: [1]\n  C:"),
        service("env as a list", "env: [A=1]"),
        service(
            "a missing variable",
            "listen: ${HTTP_PORT}\nenv: {A: \"${SECRT}\", B: \"${SECRET}\"}",
        ),
        service("a variable that is not closed", "directory: ${HOME"),
        service("a variable with a wrong value", "workers: ${WORDS}"),
        service("no user", "user: \"\"\ngroup: a:b"),
        service(
            "a wrong mask and niceness",
            "umask: 888\nnice: 20\ngroups: \"a,\"\nno_new_privs: maybe",
        ),
        service("wrong limits", "limits:\n  nofiles: 5\n  nofile: 2:1\n  cpu: 30\n  memlock: 64MB"),
        service("unknown evidence", "ready: https:/health"),
        service("evidence without its rest", "ready: http"),
        service("ready by a socket that is not there", "ready: listen"),
        service("a probe of a socket that is not there", "ready: http:/health\nlisten: udp:53"),
        service("always late", "ready: alive:40s"),
        service("an unknown signal", "stop: TREM"),
        service("an unknown signal in a list", "stop: [TERM, INT:5, KILL]"),
        service("a step as a map", "stop:\n  - INT: 5s"),
        service("an unknown service", "depends_on: [wbe, db]"),
        service("a service that waits for itself", "depends_on: web"),
        file(
            "a circle",
            "services:\n  a:\n    command: a\n    depends_on: b\n  b:\n    command: b\n    depends_on: [c]\n  c:\n    command: c\n    depends_on: a\n",
        ),
        file(
            "all at once",
            "nam: x\nservices:\n  web:\n    command: ./a\n    workers: x\n    drain_timeout: 5\n    listen: [70000, 80]\n  admin:\n    listen: 80\n    env: {A: \"${NO}\"}\n",
        ),
        file(
            "characters that are not ASCII",
            "services:\n  web: {command: a, \u{fc}ser: r\u{f6}\u{f6}t}\n",
        ),
        file("a control character", "services:\n  web: {command: a, ready: \"a\\e[31m\"}\n"),
    ]
}

#[test]
fn each_mistake_names_the_thing_the_cause_and_the_next_step() {
    let mut shown = String::new();
    for (what, text) in mistakes() {
        let report = match read_text(&text) {
            Err(report) => report,
            Ok(config) => panic!("{what}: {text}\n{config:?}"),
        };
        let report = report.to_string();
        writeln!(shown, "## {what}\n\n{report}\n").expect("written");
    }
    assert!(!shown.contains("hunter2"), "a value of the environment is shown");
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("mistakes", shown);
    });
}

#[test]
fn what_is_not_utf8_is_told_where_it_is() {
    let (path, shown) = (Path::new("x.yaml"), "x.yaml");
    let file = ConfigFile { path, shown, text: b"name: a\nfoo: \xff\n" };
    let report = read(file, &variables()).expect_err("refused");
    assert!(report.to_string().contains("x.yaml:2:6"), "{report}");
}

#[test]
fn a_file_is_what_its_command_lines_would_be() {
    let config = whole(
        "\
name: shop
logs: json
control: run/control.sock
admin: 9180
lame_duck: 2s
pid_file: run/pid
services:
  web:
    command: ./server --title 'two words'
    workers: auto
    listen:
      - http=8000,backlog=1024
      - {name: admin, unix: run/a.sock, mode: 0600}
      - udp:127.0.0.1:${PORT}
      - port: 9001+{slot}
    env: {PORT: 8000, DEBUG: true, NUMBER: 1.50, DOLLAR: $$5, WORDS: \"${WORDS}\"}
    env_file: [.env, /etc/web.env]
    directory: app
    user: 1000
    groups: [a, 5]
    umask: 027
    nice: -5
    no_new_privs: true
    limits: {nofile: 1024:65536, core: unlimited}
    ready: http:/health
    ready_timeout: 1m
    balance: slots
    drain: {before_stop: 10s}
    reload: {surge: 25%, canary: 5%, probation: 1m}
    stop: [TERM, INT:5s]
    drain_timeout: 0s
    depends_on: [agent]
  agent:
    command: [agent, '${MODE:-fast}']
",
    );
    assert_eq!(config.config.name, Name::Explicit("shop".to_owned()));
    assert_eq!(
        (config.config.logs, config.config.pid_file),
        (Some(values::Logs::Json), Some("/srv/run/pid".into()))
    );
    assert_eq!(config.config.control, Some("/srv/run/control.sock".into()));
    assert_eq!(config.config.admin, Some("127.0.0.1:9180".parse().expect("an address")));
    assert_eq!(config.config.lame_duck, Duration::from_secs(2));
    let [web, agent] = config.config.services.as_slice() else { panic!("two services") };
    let source = &web.source;
    assert_eq!(source.command, ["./server", "--title", "two words"]);
    let sockets: Vec<String> = web.sockets.iter().map(ToString::to_string).collect();
    assert_eq!(
        sockets,
        [
            "http=8000,backlog=1024",
            "admin=unix:/srv/run/a.sock,mode=0600",
            "udp:127.0.0.1:8000",
            "9001+{slot}"
        ]
    );
    assert_eq!(web.ready_timeout, Duration::from_secs(60));
    assert_eq!(web.surge, Surge::Percent(25));
    assert_eq!(web.canary, Some(Canary { percent: 5, time: Duration::from_secs(30) }));
    assert_eq!(web.probation, Duration::from_secs(60));
    assert_eq!(web.depends_on, ["agent"]);
    assert_eq!(agent.source.command, ["agent", "fast"]);
    assert_eq!(agent.source.directory, Some("/srv".into()));
}

#[test]
fn only_what_is_given_differs_from_the_command_line() {
    let config = whole(&service(""));
    let [web] = config.config.services.as_slice() else { panic!("one service") };
    assert_eq!(config.config.name, Name::Implicit("web".to_owned()));
    let source = Source {
        command: vec!["./server".into()],
        directory: Some("/srv".into()),
        ..web.source.clone()
    };
    assert_eq!(*web, ServiceConfig::new("web".to_owned(), source));
}

#[test]
fn what_a_variable_holds_never_becomes_structure() {
    let config = whole(&service("env: {A: \"${WORDS}\"}"));
    assert_eq!(config.config.services[0].source.variables, [("A".to_owned(), "a: [b".to_owned())]);
}

/// Texts that look like a configuration more often than any text does.
fn configuration_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        proptest::sample::select(schema::Service::KEYS).prop_map(str::to_owned),
        proptest::sample::select(schema::File::KEYS).prop_map(str::to_owned),
        proptest::sample::select(crate::config::listen::keys()).prop_map(str::to_owned),
        proptest::sample::select(vec![
            "web",
            "a",
            "30s",
            "8000",
            "auto",
            "${A}",
            "${A:-1}",
            "[a, b]",
            "{port: 80}",
            "~",
            "\u{e4}"
        ])
        .prop_map(str::to_owned),
    ];
    let line =
        (0_usize..4, word.clone(), prop_oneof![Just(": "), Just(":"), Just(" "), Just("- ")], word);
    let line = line.prop_map(|(depth, key, colon, value)| {
        format!("{}{key}{colon}{value}\n", "  ".repeat(depth))
    });
    proptest::collection::vec(line, 0..12)
        .prop_map(|lines| format!("services:\n  web:\n{}", lines.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_read_or_refused_at_places_inside_of_it(text in prop_oneof![configuration_like(), "\\PC{0,60}"]) {
        if let Err(report) = read_text(&text) {
            prop_assert!(!report.mistakes().is_empty());
            let lines = text.split('\n').count();
            for (mistake, entry) in report.mistakes().iter().zip(report.entries()) {
                let at = mistake.at.expect("a place");
                prop_assert!(text.get(at.start..at.end).is_some(), "{:?}", mistake);
                prop_assert!(entry.line.is_some_and(|line| line <= lines));
            }
            let _ = report.to_string();
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let file = ConfigFile { path: Path::new("x.yaml"), shown: "x.yaml", text: &bytes };
        let _ = read(file, &variables());
    }

    /// JSON is YAML, with all its escapes.
    #[test]
    fn any_command_comes_back_as_it_was_written(words in proptest::collection::vec("[\\PC&&[^$]]{1,8}", 1..5)) {
        // These end a line in YAML 1.1 only, so they are refused as they are.
        let plain = |word: String| word.replace(['\u{2028}', '\u{2029}'], "x");
        let words: Vec<String> = words.into_iter().map(plain).collect();
        let list = serde_json::to_string(&words).expect("written");
        let text = format!("services: {{web: {{command: {list}}}}}\n");
        let config = read_text(&text);
        let config = config.map_err(|report| TestCaseError::fail(format!("{text}\n{report}")))?;
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        prop_assert_eq!(&config.config.services[0].source.command, &words);
    }
}

#[test]
fn upstreams_are_read_and_their_file_is_beside_ours() {
    let lines = "listen: 8001+{slot}\n\
                 upstreams:\n  format: haproxy\n  path: proxy/web.cfg\n  reload: kill -USR2 $(cat pid)";
    let config = whole(&service(lines)).config;
    let upstreams = config.services[0].upstreams.clone().expect("upstreams");
    assert_eq!(upstreams.file.path, Path::new("/srv/proxy/web.cfg"));
    assert_eq!(upstreams.file.format, crate::config::upstreams::Format::Haproxy);
    assert_eq!(upstreams.reload, "kill -USR2 $(cat pid)");
}
