//! The shop's front: `GET /` says what an apple costs and how many there are, `POST /buy` sells one.
//! The price is the variable PRICE; without a number in it there is no shop.

#![expect(clippy::print_stderr, reason = "stderr is its log")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a program of its own and reads its variables"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;
use std::{env, process, thread};

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGTERM;

/// A longer request head is not read to its end.
const HEAD_BYTES_MAX: u64 = 8 * 1024;
/// How long a client, or the agent, may take for each read and write.
const WAIT_MAX: Duration = Duration::from_secs(5);

fn main() {
    if let Err(error) = run() {
        // In one piece, as others write to the same place.
        let line = format!("web: {error}\n");
        eprint!("{line}");
        process::exit(1);
    }
}

fn run() -> io::Result<()> {
    let price = env::var("PRICE").unwrap_or_default();
    let Ok(price) = price.parse::<u32>() else {
        return Err(io::Error::other(format!("PRICE is `{price}`, and must be a whole number")));
    };
    let (stop, stop_sender) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, stop_sender)?;
    let listener = ListenFd::from_env().take_tcp_listener(0)?;
    let listener = listener.ok_or_else(|| io::Error::other("no socket was handed over"))?;
    // Its workers share the socket: another one may be faster, and then accept() must not wait.
    listener.set_nonblocking(true)?;
    if let Some(manager) = env::var_os("NOTIFY_SOCKET") {
        let message = format!("READY=1\nSTATUS=sells apples at {price}");
        UnixDatagram::unbound()?.send_to(message.as_bytes(), manager)?;
    }
    // At the end of the scope are all threads done, so what was accepted is answered.
    thread::scope(|scope| {
        while !stops(&listener, &stop) {
            if let Ok((stream, _)) = listener.accept() {
                scope.spawn(move || {
                    // A client that has gone needs no answer.
                    let _ = serve(&stream, price);
                });
            }
        }
    });
    Ok(())
}

/// Waits for a connection or the stop signal; whether it was the signal.
fn stops(listener: &TcpListener, stop: &UnixStream) -> bool {
    let mut waiting = [listener.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    // A signal interrupts the wait; then nothing is readable and the next wait tells.
    let _ = poll(&mut waiting, PollTimeout::NONE);
    waiting[1].any() == Some(true)
}

/// Answers one request, and closes.
fn serve(mut stream: &TcpStream, price: u32) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    let mut lines = BufReader::new(stream.take(HEAD_BYTES_MAX)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/"] => match change_stock(0) {
            Ok(left) => ("200 OK", format!("{left} apples at {price} each\n")),
            Err(error) => ("503 Service Unavailable", format!("no stock: {error}\n")),
        },
        ["POST", "/buy"] => match change_stock(-1).as_deref() {
            Ok("no") => ("409 Conflict", "sold out\n".to_owned()),
            Ok(left) => ("200 OK", format!("sold for {price}, {left} left\n")),
            Err(error) => ("503 Service Unavailable", format!("no stock: {error}\n")),
        },
        _ => ("404 Not Found", "GET / or POST /buy\n".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    stream.shutdown(Shutdown::Write)?;
    // A close() with something unread would reset the connection, and the answer could be lost.
    io::copy(&mut stream.take(HEAD_BYTES_MAX), &mut io::sink()).map(drop)
}

/// A line with a number to the agent, its answer back; see `stock.py`.
fn change_stock(by: i32) -> io::Result<String> {
    let mut agent = UnixStream::connect("stock.sock")?;
    agent.set_read_timeout(Some(WAIT_MAX))?;
    writeln!(agent, "{by}")?;
    let mut answer = String::new();
    agent.take(64).read_to_string(&mut answer)?;
    Ok(answer.trim().to_owned())
}
