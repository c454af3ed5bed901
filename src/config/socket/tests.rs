//! Every form of a socket that can be written, and every mistake in one.

use super::*;
use crate::config::identity::Account;
use crate::config::socket_options::AtTheStop;
use core::time::Duration;
use proptest::prelude::*;

#[test]
fn reads_every_form() {
    let ip = |text: &str| Address::Ip(text.parse().unwrap());
    let unix = |path: &str| Address::Unix(PathBuf::from(path));
    for (text, name, address) in [
        ("8000", None, Address::Port(8000)),
        ("0", None, Address::Port(0)),
        ("65535", None, Address::Port(65535)),
        ("127.0.0.1:8000", None, ip("127.0.0.1:8000")),
        ("0.0.0.0:0", None, ip("0.0.0.0:0")),
        ("[::1]:8000", None, ip("[::1]:8000")),
        ("[::]:8000", None, ip("[::]:8000")),
        ("[fe80::1%2]:80", None, ip("[fe80::1%2]:80")),
        ("localhost:8000", None, Address::Localhost(8000)),
        ("unix:/run/x.sock", None, unix("/run/x.sock")),
        ("unix:x.sock", None, unix("x.sock")),
        ("unix:/run/a=b.sock", None, unix("/run/a=b.sock")),
        ("unix:./@x", None, unix("./@x")),
        ("web=8000", Some("web"), Address::Port(8000)),
        ("my web/1=[::1]:0", Some("my web/1"), ip("[::1]:0")),
        ("web=unix:/run/a=b.sock", Some("web"), unix("/run/a=b.sock")),
    ] {
        let name = name.map(|name: &str| name.parse().unwrap());
        let (transport, options) = (Transport::Stream, SocketOptions::default());
        let spec = SocketSpec { name, transport, address, slots: Slots::Shared, options };
        assert_eq!(text.parse(), Ok(spec.clone()), "{text}");
        assert_eq!(spec.to_string(), text);
    }
}

#[test]
fn reads_every_transport() {
    let ip = |text: &str| Address::Ip(text.parse().unwrap());
    let name = |name: &str| Address::Abstract(name.to_owned());
    for (text, transport, address) in [
        ("udp:5353", Transport::Datagram, Address::Port(5353)),
        ("udp:127.0.0.1:53", Transport::Datagram, ip("127.0.0.1:53")),
        ("udp:[::1]:53", Transport::Datagram, ip("[::1]:53")),
        ("udp:localhost:53", Transport::Datagram, Address::Localhost(53)),
        ("seqpacket:/run/x", Transport::Seqpacket, Address::Unix("/run/x".into())),
        ("seqpacket:/a=b", Transport::Seqpacket, Address::Unix("/a=b".into())),
        ("seqpacket:@x", Transport::Seqpacket, name("x")),
        ("unix:@x/y", Transport::Stream, name("x/y")),
        ("unix:@x,,y", Transport::Stream, name("x,y")),
        ("a,,b=unix:@x,,y", Transport::Stream, name("x,y")),
    ] {
        let spec: SocketSpec = text.parse().unwrap();
        assert_eq!((spec.transport, &spec.address), (transport, &address), "{text}");
        assert_eq!(spec.to_string(), text);
    }
}

#[test]
fn reads_a_socket_a_slot_and_gives_each_its_own() {
    for (text, third) in [
        ("8001+{slot}", "8003"),
        ("127.0.0.1:8001+{slot}", "127.0.0.1:8003"),
        ("[::1]:8001+{slot}", "[::1]:8003"),
        ("udp:9000+{slot}", "udp:9002"),
        ("udp:[::1]:9000+{slot}", "udp:[::1]:9002"),
        ("unix:/run/{slot}/web.{slot}.sock", "unix:/run/2/web.2.sock"),
        ("unix:@web.{slot}", "unix:@web.2"),
        ("seqpacket:/run/{slot}", "seqpacket:/run/2"),
        ("http=8001+{slot},backlog=7", "http=8003,backlog=7"),
    ] {
        let spec: SocketSpec = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((spec.slots, spec.to_string().as_str()), (Slots::Each, text));
        let own = spec.of_slot(2).unwrap_or_else(|| panic!("{text} has no port"));
        assert_eq!((own.slots, own.to_string().as_str()), (Slots::One(2), third));
        assert_eq!(own.of_slot(2), None);
    }
    let last: SocketSpec = "65533+{slot}".parse().unwrap();
    assert_eq!(last.slots_max(), 3);
    assert_eq!(last.of_slot(2).map(|spec| spec.place()).as_deref(), Some("65535"));
    assert_eq!(last.of_slot(3), None);
    let shared: SocketSpec = "8001".parse().unwrap();
    assert_eq!((shared.slots_max(), shared.of_slot(0)), (4096, None));
}

#[test]
fn a_slot_elsewhere_is_a_mistake_with_the_right_form() {
    let right = |hint: &str| {
        format!(
            "`{{slot}}` stands behind a port, as in `{hint}+{{slot}}`, or in a path, as in \
             `unix:/run/web.{{slot}}.sock`"
        )
    };
    let long = "x".repeat(UNIX_PATH_BYTES_MAX - 3);
    for (text, cause) in [
        ("8001{slot}", right("8001")),
        ("8001 + {slot}", right("8001")),
        ("127.0.0.1:8001-{slot}", right("127.0.0.1:8001")),
        ("udp:8001{slot}", right("udp:8001")),
        ("8001+{slot}+{slot}", right("8001")),
        ("{slot}", right("8001")),
        ("+{slot}", right("8001")),
        ("{slot}:8000", right("8001")),
        ("127.0.0.{slot}:8000", right("8001")),
        ("web{slot}=8000", right("8000")),
        ("8000,bind_to_device=eth{slot}", right("8000")),
        ("0+{slot}", "each slot needs a port that is known".to_owned()),
        ("udp:[::]:0+{slot}", "each slot needs a port that is known".to_owned()),
        ("udp:localhost:8001+{slot}", "write `udp:127.0.0.1:8001+{slot}`".to_owned()),
        ("65536+{slot}", "port `65536` is above 65535".to_owned()),
        (&format!("unix:{long}{{slot}}"), "its path has 108 bytes".to_owned()),
    ] {
        let error = text.parse::<SocketSpec>().unwrap_err().to_string();
        assert!(error.contains(&cause), "{text}: {error}");
    }
}

#[test]
fn reads_every_option() {
    let every = "http=8000,backlog=1024,reuse_port,v6only,freebind,transparent,bind_to_device=lo,\
                 fast_open=16,defer_accept=5s,no_delay,keep_alive,non_blocking,mark=42,receive_buffer=65536,\
                 send_buffer=1048576";
    let spec: SocketSpec = every.parse().unwrap();
    let expected = SocketOptions {
        backlog: Some(1024),
        reuse_port: true,
        v6only: true,
        freebind: true,
        transparent: true,
        fast_open: Some(16),
        defer_accept: Some(Duration::from_secs(5)),
        no_delay: true,
        keep_alive: true,
        non_blocking: true,
        bind_to_device: Some("lo".to_owned()),
        mark: Some(42),
        receive_buffer: Some(65536),
        send_buffer: Some(1 << 20),
        ..SocketOptions::default()
    };
    assert_eq!(spec.options, expected);
    let early: Vec<_> = spec.options.before_bind().collect();
    assert_eq!(early, ["reuse_port", "v6only", "freebind", "transparent", "bind_to_device"]);
    assert_eq!(spec.to_string(), every);

    let unix = "seqpacket:/run/a,,,backlog=9,mode=0600,user=www-data,group=0,unlink=no";
    let spec: SocketSpec = unix.parse().unwrap();
    let expected = SocketOptions {
        backlog: Some(9),
        mode: Some(0o600),
        user: Some(Account::Name("www-data".to_owned())),
        group: Some(Account::Number(0)),
        at_the_stop: AtTheStop::Kept,
        ..SocketOptions::default()
    };
    assert_eq!((&spec.address, &spec.options), (&Address::Unix("/run/a,".into()), &expected));
    assert_eq!(spec.to_string(), unix);
    let early: Vec<_> = spec.options.before_bind().collect();
    assert_eq!(early, ["mode", "user", "group", "unlink"]);
}

#[test]
fn reads_other_spellings_of_the_same_option() {
    for (text, canonical) in [
        ("8000,send_buffer=64k", "8000,send_buffer=65536"),
        ("8000,receive_buffer=1M", "8000,receive_buffer=1048576"),
        ("8000,v6only=yes,no_delay=no", "8000,v6only"),
        ("8000,defer_accept=1m", "8000,defer_accept=60s"),
        ("8000,mark=0xfF", "8000,mark=255"),
        ("unix:x,unlink=yes,mode=600", "unix:x,mode=0600"),
        ("unix:x,group=1,user=2,backlog=7", "unix:x,backlog=7,user=2,group=1"),
    ] {
        assert_eq!(text.parse::<SocketSpec>().unwrap().to_string(), canonical);
    }
}

#[test]
fn says_what_is_wrong_with_an_option() {
    let number = "is not a number from 1 to 2147483647; write `backlog=1024`";
    for (text, cause) in [
        (
            "8000,",
            "there is nothing after a comma; write an option such as `backlog=1024`, \
             or `,,` for a comma",
        ),
        (
            "8000,backlogg=1",
            "it has no option `backlogg`; there is `backlog`; for a comma write `,,`",
        ),
        ("8000,backlog=1,backlog=1", "the option `backlog` is given twice; give it once"),
        ("8000,backlog", "the option `backlog` needs a value; write `backlog=1024`"),
        ("8000,backlog=0", &format!("`backlog=0` {number}")),
        ("8000,backlog=+1", &format!("`backlog=+1` {number}")),
        (
            "unix:x,mode=0888",
            "`mode=0888` is not an octal number from 0 to 0777; write `mode=0660`",
        ),
        ("8000,v6only,v6only", "the option `v6only` is given twice; give it once"),
        ("8000,v6only=1", "`v6only=1` is not `yes` or `no`; write `v6only=yes`"),
        (
            "8000,send_buffer=2G",
            "`send_buffer=2G` is not a size of at most 1G; write `send_buffer=256k`",
        ),
        (
            "8000,defer_accept=1500ms",
            "`defer_accept=1500ms` is not a duration of whole seconds; write `defer_accept=5s`",
        ),
        (
            "8000,bind_to_device=an interface",
            "`bind_to_device=an interface` is not the name of a network interface; \
             write `bind_to_device=eth0`",
        ),
        (
            "8000,mark=0x",
            "`mark=0x` is not a number from 0 to 4294967295, or 0x and such a number in \
             hexadecimal; write `mark=0x2a`",
        ),
        (
            "127.0.0.1:80,v6only",
            "the option `v6only` is for a bare port or `[::]` only; leave it away",
        ),
        ("udp:53,no_delay", "the option `no_delay` is for TCP sockets only; leave it away"),
        ("unix:x,freebind", "the option `freebind` is for TCP and UDP sockets only; leave it away"),
        // An accepted connection has buffers of its own, and a unix socket that listens no use for any.
        (
            "unix:x,send_buffer=64k",
            "the option `send_buffer` is for TCP and UDP sockets only; leave it away",
        ),
        ("unix:x,mode=", "`mode=` is not an octal number from 0 to 0777; write `mode=0660`"),
        ("unix:x,unlink", "the option `unlink` needs a value; write `unlink=no`"),
        ("unix:x,unlink=0", "`unlink=0` is not `yes` or `no`; write `unlink=no`"),
        ("unix:x,user=", "`user=` is not a user's name or number; write `user=www-data`"),
        ("8000,mode=0600", "the option `mode` is for unix sockets with a path only; leave it away"),
        (
            "unix:@x,user=root",
            "the option `user` is for unix sockets with a path only; leave it away",
        ),
        (
            "udp:53,backlog=1",
            "the option `backlog` is for sockets that accept connections only; leave it away",
        ),
    ] {
        let error = text.parse::<SocketSpec>().expect_err(text).to_string();
        assert_eq!(error, format!("cannot read socket `{text}`: {cause}"));
    }
    let error = "8000,x=1".parse::<SocketSpec>().unwrap_err().to_string();
    assert!(socket_options::names().all(|name| error.contains(name)), "{error}");
}

#[test]
fn reads_other_spellings_of_the_same_socket() {
    for (text, canonical) in [
        ("08000", "8000"),
        ("LocalHost:80", "localhost:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("[fe80::1%0]:80", "[fe80::1]:80"),
    ] {
        assert_eq!(text.parse::<SocketSpec>().unwrap().to_string(), canonical);
    }
}

#[test]
fn says_what_is_wrong_and_what_to_write() {
    for (text, cause) in [
        ("", "it is empty; write a port such as `8000`"),
        ("web=", "it is empty; write a port such as `8000`"),
        ("80000", "port `80000` is above 65535"),
        ("127.0.0.1:65536", "port `65536` is above 65535"),
        ("127.0.0.1", "it has no port; write `127.0.0.1:8000`"),
        ("127.0.0.1:", "it has no port; write `127.0.0.1:8000`"),
        ("127.0.0.1:http", "port `http` is not a number from 0 to 65535"),
        ("127.0.0.1:+80", "port `+80` is not a number from 0 to 65535"),
        ("-1", "it has no port; write `-1:8000`"),
        (":8000", "the host before `:` is empty; write `8000` to listen on every address"),
        ("*:8000", "`*` is not an address; write `8000` to listen on every address"),
        (
            "example.com:80",
            "`example.com` is a name, and names are not looked up; write its IP address",
        ),
        (
            "256.0.0.1:80",
            "`256.0.0.1` is not an IPv4 address; write four numbers from 0 to 255 \
             such as `127.0.0.1`",
        ),
        ("::1:8000", "an IPv6 address needs brackets; write `[::1]:8000`"),
        ("::1", "an IPv6 address needs brackets; write `[::1]:8000`"),
        ("[::1]", "it has no port; write `[::1]:8000`"),
        ("[::1]8000", "it has no port; write `[::1]:8000`"),
        ("[::1:80", "the bracket is not closed; write an address such as `[::1]:8000`"),
        ("[x]:80", "`x` is not an IPv6 address; write one such as `[::1]:8000`"),
        ("[127.0.0.1]:80", "`127.0.0.1` is not an IPv6 address; write one such as `[::1]:8000`"),
        (
            "[fe80::1%eth0]:80",
            "the scope `eth0` is not a number; write the interface's index, \
             which `ip link` shows",
        ),
        ("[::ffff:127.0.0.1]:80", "it is an IPv4 address written as IPv6; write `127.0.0.1:80`"),
        ("http://localhost:80", "it is a URL; write host and port only, such as `127.0.0.1:8000`"),
        ("tcp:80", "the prefix `tcp:` is not known; write `80` alone"),
        ("/run/x.sock", "it looks like a path; write `unix:/run/x.sock`"),
        ("unix:", "there is no path after `unix:`; write one such as `unix:/run/x.sock`"),
        ("unix:@", "there is no path after `unix:`; write one such as `unix:/run/x.sock`"),
        ("seqpacket:80", "`80` is no path; write one such as `seqpacket:/run/x.sock`"),
        ("udp:", "there is no port after `udp:`; write one such as `udp:5353`"),
        ("udp::53", "the host before `:` is empty; write `udp:53` to listen on every address"),
        ("udp:127.0.0.1", "it has no port; write `udp:127.0.0.1:8000`"),
        ("udp:::1", "an IPv6 address needs brackets; write `udp:[::1]:8000`"),
        (
            "seqpacket:",
            "there is no path after `seqpacket:`; write one such as `seqpacket:/run/x.sock`",
        ),
        (
            "udp:example.com:80",
            "`example.com` is a name, and names are not looked up; write its IP address",
        ),
        ("unix:/run/", "its path names a directory; add the name of the socket"),
        ("unix:/run/..", "its path names a directory; add the name of the socket"),
        ("unix:/a\0b", "its path contains a NUL byte"),
        ("=8000", "the name before `=` is empty; write a name, or leave the `=` away"),
        ("a:b=8000", "the name `a:b` contains `:`; use printable ASCII without `:` and `=`"),
        ("tür=8000", "the name `tür` contains `ü`; use printable ASCII without `:` and `=`"),
        ("a\nb=8000", "the name `a\\nb` contains `\\n`; use printable ASCII without `:` and `=`"),
        (
            "unknown=8000",
            "the name `unknown` is reserved by the LISTEN_FDNAMES convention; choose another",
        ),
        (
            "connection=8000",
            "the name `connection` is reserved by the LISTEN_FDNAMES convention; \
             choose another",
        ),
    ] {
        let error = text.parse::<SocketSpec>().expect_err(text).to_string();
        assert_eq!(error, format!("cannot read socket `{}`: {cause}", one_line(text)));
    }
}

#[test]
fn limits_paths_and_names_by_their_bytes() {
    let path = |bytes: usize| format!("unix:/{}", "x".repeat(bytes - 1));
    assert!(path(107).parse::<SocketSpec>().is_ok());
    let error = path(108).parse::<SocketSpec>().unwrap_err();
    assert_eq!(error.cause, SocketSpecCause::PathTooLong { bytes: 108 });
    let name = |bytes: usize| format!("unix:@{}", "x".repeat(bytes));
    assert!(name(107).parse::<SocketSpec>().is_ok());
    assert!(name(108).parse::<SocketSpec>().is_err());
    let umlauts = format!("unix:/{}", "ü".repeat(54));
    assert!(umlauts.parse::<SocketSpec>().is_err());

    assert!("n".repeat(255).parse::<SocketName>().is_ok());
    let error = "n".repeat(256).parse::<SocketName>().unwrap_err();
    assert_eq!(error, SocketNameError::TooLong { bytes: 256 });
}

fn addresses() -> impl Strategy<Value = Address> {
    let v6 = any::<([u8; 16], u16, u32)>()
        .prop_map(|(ip, port, scope)| SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope))
        .prop_filter("mapped", |address| address.ip().to_ipv4_mapped().is_none());
    prop_oneof![
        any::<u16>().prop_map(Address::Port),
        any::<u16>().prop_map(Address::Localhost),
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| Address::Ip(SocketAddr::from((ip, port)))),
        v6.prop_map(|address| Address::Ip(SocketAddr::V6(address))),
        "/?([a-z=:., @ü-]{1,9}/){0,3}[a-z=:@][a-z=:., @ü-]{0,9}"
            .prop_filter("abstract", |path| !path.starts_with('@'))
            .prop_map(|path| Address::Unix(PathBuf::from(path))),
    ]
}

fn endpoints() -> impl Strategy<Value = (Transport, Address)> {
    let name = "[a-z@,=:/ü]{1,20}".prop_map(Address::Abstract);
    (prop_oneof![4 => addresses(), 1 => name], any::<bool>()).prop_map(|(address, other)| {
        let transport = match (&address, other) {
            (_, false) => Transport::Stream,
            (Address::Unix(_) | Address::Abstract(_), true) => Transport::Seqpacket,
            (_, true) => Transport::Datagram,
        };
        (transport, address)
    })
}

fn names() -> impl Strategy<Value = SocketName> {
    "[ -9;<>-~]{1,255}".prop_filter_map("reserved", |text| text.parse().ok())
}

proptest! {
    #[test]
    fn survives_writing_and_reading(
        name in proptest::option::of(names()),
        (transport, address) in endpoints(),
        backlog in proptest::option::of(1..=i32::MAX.unsigned_abs()),
        mode in proptest::option::of(0..=0o777_u32),
        user in proptest::option::of("[a-z,=0-9]{1,9}"),
        flags in any::<[bool; 3]>(),
        mark in any::<Option<u32>>(),
    ) {
        let is_path = matches!(address, Address::Unix(_));
        let is_ip = !is_path && !matches!(address, Address::Abstract(_));
        let options = SocketOptions {
            backlog: backlog.filter(|_| transport != Transport::Datagram),
            mode: mode.filter(|_| is_path),
            user: user.filter(|_| is_path).and_then(|user| user.parse().ok()),
            reuse_port: is_ip && flags[0],
            freebind: is_ip && flags[1],
            transparent: is_ip && flags[2],
            mark: mark.filter(|_| is_ip),
            ..SocketOptions::default()
        };
        let spec = SocketSpec { name, transport, address, slots: Slots::Shared, options };
        prop_assert_eq!(spec.to_string().parse(), Ok(spec));
    }

    #[test]
    fn any_text_is_read_or_refused_on_one_line(text in any::<String>()) {
        match text.parse::<SocketSpec>() {
            Ok(spec) => prop_assert_eq!(spec.to_string().parse(), Ok(spec)),
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }

    #[test]
    fn text_of_the_grammar_is_read_or_refused(
        text in "(a=|unix:|udp:|seqpacket:|=)?[0-9a-f:.%*/@\\[\\]=,]{0,20}(,(mode|mark|v6only|backlog)=?[0-9]{0,3})?",
    ) {
        if let Ok(spec) = text.parse::<SocketSpec>() {
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }
}
