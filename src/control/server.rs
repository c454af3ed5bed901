//! The thread that speaks HTTP with clients. It holds no state: whatever becomes of it, the daemon
//! has lost nothing, and starts another.
//!
//! A client costs what the limits below allow and no more: one that stalls, floods or dies takes
//! nothing from the others, and nothing from the loop.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::Patient;
use super::message::Asker;
use super::wire::ProblemKind;
use super::{admin, api, problem};
use crate::os::wake::Wake;

/// How many clients are served at a time: people and programs that look on, not traffic.
pub const CLIENTS_MAX: usize = 64;

/// How many more are told that there are too many; the rest wait in the socket's queue.
const REFUSED_MAX: usize = 64;

/// How many connections of monitoring are served at a time: some scrapers, and whoever checks health.
/// They are apart from clients, so that neither is in the way of the other.
pub const MONITORS_MAX: usize = 32;

/// How long a client that is one too many waits for another to go, before it is told.
const TURN_WITHIN: Duration = Duration::from_secs(1);

/// How long the head of a request may take, and so how long a connection may be idle.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_MAX: usize = 16 << 10;

/// How long a client may leave what it is sent unread.
const UNREAD_WITHIN: Duration = Duration::from_secs(60);

/// How long answers may take to leave when the daemon ends: they are in the kernel's hands at once,
/// unless a client does not read.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);

/// How long the loop waits for that at its very end.
const END_WITHIN: Duration = Duration::from_secs(1);

/// How long to wait after an accept that failed for want of something, a descriptor mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How many orders may wait for the thread.
const ORDERS_MAX: usize = 4;

/// How much of its stack it touches is little; how much it may is what libraries are used to.
const STACK_BYTES: usize = 1 << 20;

/// A thread that serves.
#[derive(Debug)]
pub struct Server {
    /// Another listener in the place of the one it has. Its end is the thread's.
    orders: mpsc::Sender<StdListener>,
    /// Disconnected once the thread is at its end.
    end: Receiver<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Starts one that takes its clients at the doors, and asks the loop by `asker`. On the control
    /// socket it serves `user` and root.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn start(doors: Doors, asker: Asker, user: u32) -> io::Result<Server> {
        let (orders, new_listeners) = mpsc::channel(ORDERS_MAX);
        let (alive, end) = sync_channel(0);
        let farewell = Farewell { alive: Some(alive), wake: asker.wake().clone() };
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _farewell = farewell;
                run(doors, new_listeners, asker, user)
            })?;
        Ok(Server { orders, end, thread })
    }

    /// Whether it has ended although nobody asked it to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Why it has ended, once it has: `Err` where that was the socket's doing, which is of no use
    /// any more.
    ///
    /// # Errors
    ///
    /// What accept(2) said.
    pub fn why(self) -> io::Result<&'static str> {
        match self.thread.join() {
            Ok(Ok(())) => Ok("it ended"),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok("it panicked, see above"),
        }
    }

    /// Has it take its clients from another socket from here on. Returns whether it will.
    #[must_use]
    pub fn listen(&self, listener: StdListener) -> bool {
        self.orders.try_send(listener).is_ok()
    }

    /// Ends it once the answers that it has are on their way; waits for that, with a bound.
    pub fn finish(self) {
        let Server { orders, end, thread } = self;
        drop(orders);
        match end.recv_timeout(END_WITHIN) {
            Err(RecvTimeoutError::Disconnected) => {
                // It is over; how it ended is nobody's concern any more.
                let _ = thread.join();
            }
            // It ends with the process.
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Where clients come in. None of them blocks.
#[derive(Debug)]
pub struct Doors {
    /// The control socket.
    pub control: StdListener,
    /// The socket for monitoring, where there is one.
    pub admin: Option<StdTcpListener>,
}

/// Tells the loop of the end, however it comes.
struct Farewell {
    alive: Option<SyncSender<()>>,
    wake: Wake,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // First, so that who is woken sees it.
        self.alive.take();
        self.wake.ring();
    }
}

fn run(
    doors: Doors,
    orders: mpsc::Receiver<StdListener>,
    asker: Asker,
    user: u32,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (ending, is_ending) = watch::channel(());
        let mut house = House {
            user,
            clients: Room::new(api::router(asker.clone()), CLIENTS_MAX),
            monitors: Room::new(admin::router(asker), MONITORS_MAX),
            connections: JoinSet::new(),
            is_ending,
        };
        let control = UnixListener::from_std(doors.control)?;
        let admin = doors.admin.map(TcpListener::from_std).transpose()?;
        let ended = house.receive(control, admin, orders).await;
        drop(ending);
        let all_gone = async { while house.connections.join_next().await.is_some() {} };
        // Who does not read by then does not at all.
        let _ = timeout(FAREWELL_WITHIN, all_gone).await;
        ended
    })
}

/// Everybody who is connected.
struct House {
    user: u32,
    clients: Room,
    monitors: Room,
    connections: JoinSet<()>,
    /// Changed when everybody has to go.
    is_ending: watch::Receiver<()>,
}

/// So many of one kind, and what they can ask.
struct Room {
    router: Router,
    most: usize,
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Room {
    fn new(router: Router, most: usize) -> Room {
        let served = Arc::new(Semaphore::new(most));
        Room { router, most, served, refused: Arc::new(Semaphore::new(REFUSED_MAX)) }
    }
}

impl House {
    /// Takes clients until it is told to end, or cannot.
    async fn receive(
        &mut self,
        mut control: UnixListener,
        admin: Option<TcpListener>,
        mut orders: mpsc::Receiver<StdListener>,
    ) -> io::Result<()> {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(another) => control = UnixListener::from_std(another)?,
                    None => return Ok(()),
                },
                accepted = control.accept() => match accepted {
                    Ok((stream, _)) => self.admit_client(stream),
                    // It does not listen: somebody shut it down.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                accepted = accept(admin.as_ref()) => match accepted {
                    Ok(stream) => self.admit(stream, Kind::Monitor),
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                // Their memory goes as they go.
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn admit_client(&mut self, stream: UnixStream) {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if !uid.is_ok_and(|uid| uid == self.user || uid == 0) {
            let Ok(permit) = Arc::clone(&self.clients.refused).try_acquire_owned() else { return };
            let is_ending = self.is_ending.clone();
            let detail = "the control socket serves the user that shepherd runs as, and root";
            let refusal = refusal(ProblemKind::Forbidden, 403, detail);
            self.connections.spawn(serve(stream, refusal, permit, is_ending));
            return;
        }
        self.admit(stream, Kind::Client);
    }

    fn admit(&mut self, stream: impl Stream, kind: Kind) {
        let is_ending = self.is_ending.clone();
        let room = match kind {
            Kind::Client => &self.clients,
            Kind::Monitor => &self.monitors,
        };
        let (router, most) = (room.router.clone(), room.most);
        if let Ok(permit) = Arc::clone(&room.served).try_acquire_owned() {
            self.connections.spawn(serve(stream, router, permit, is_ending));
            return;
        }
        let Ok(waits) = Arc::clone(&room.refused).try_acquire_owned() else { return };
        let served = Arc::clone(&room.served);
        self.connections.spawn(async move {
            if let Ok(Ok(permit)) = timeout(TURN_WITHIN, served.acquire_owned()).await {
                drop(waits);
                serve(stream, router, permit, is_ending).await;
            } else {
                let detail = format!("{most} clients are served; try again in a moment");
                let refusal = refusal(ProblemKind::TooBusy, 503, &detail);
                serve(stream, refusal, waits, is_ending).await;
            }
        });
    }
}

/// Answers everything with a problem.
fn refusal(kind: ProblemKind, status: u16, detail: &str) -> Router {
    let problem = problem::of(kind, status, detail);
    Router::new().fallback(async || ([("connection", "close")], problem))
}

/// Who has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To the control socket.
    Client,
    /// To the socket for monitoring.
    Monitor,
}

/// What a connection is made of.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<Any: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for Any {}

/// The next connection; never, where nobody can come.
async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn serve(
    stream: impl Stream,
    router: Router,
    _permit: OwnedSemaphorePermit,
    mut is_ending: watch::Receiver<()>,
) {
    let stream = TokioIo::new(Patient::new(stream, UNREAD_WITHIN));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_MAX)
            .serve_connection(stream, TowerToHyperService::new(router))
    );
    // How it ends is the client's concern.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = is_ending.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Reply, channel};
    use crate::os::admin_socket::AdminSocket;
    use crate::os::control_socket::{ControlSocket, Directory, our_user};
    use std::io::{Read, Write};
    use std::net::TcpStream as StdTcpStream;

    #[test]
    fn monitoring_goes_on_with_the_next_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let control = ControlSocket::bind(&directory.path().join("x"), Directory::Ours);
        let control = control.expect("bound");
        let admin = AdminSocket::bind("0".parse().expect("an address")).expect("bound");
        let (asker, calls) = channel(Wake::new().expect("a descriptor"));
        let answers = thread::spawn(move || {
            for call in calls {
                call.client.answer(Ok(Reply::Alive));
            }
        });
        for _ in 0..2 {
            // Whoever comes while there is no thread waits in the queue.
            let mut monitor = StdTcpStream::connect(admin.place()).expect("connected");
            let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            monitor.write_all(request).expect("sent");
            let doors = Doors {
                control: control.acceptor().expect("a copy"),
                admin: Some(admin.acceptor().expect("a copy")),
            };
            let server = Server::start(doors, asker.clone(), our_user()).expect("a thread");
            let mut answer = String::new();
            monitor.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
            server.finish();
        }
        drop(asker);
        answers.join().expect("all was answered");
    }
}
