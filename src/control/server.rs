//! The thread that speaks HTTP with clients. It holds no state: whatever becomes of it, the daemon
//! has lost nothing, and starts another.
//!
//! A client costs what the limits below allow and no more: one that stalls, floods or dies takes
//! nothing from the others, and nothing from the loop. Where all places are taken the one leaves who
//! has kept us waiting for longest ([`guest`]).

use std::future::pending;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::Patient;
use super::door::{Door, Doors};
use super::guest::{self, Guest, Guests};
use super::message::Asker;
use super::wire::ProblemKind;
use super::{admin, api, problem};
use crate::os::clock;
use crate::os::wake::Wake;

/// How many clients are served at a time: people and programs that look on, not traffic.
pub const CLIENTS_MAX: usize = 64;

/// How many more wait for a place, or are told that there is none; the rest wait in the socket's
/// queue.
const HALL_MAX: usize = 64;

/// How many connections of monitoring are served at a time: some scrapers, and whoever checks health.
/// They are apart from clients, so that neither is in the way of the other.
pub const MONITORS_MAX: usize = 32;

/// How many that may not ask are told so at a time; the rest are cut off.
const STRANGERS_MAX: usize = 16;

/// How long a client that is one too many waits for another to go, before it is told.
const TURN_WITHIN: Duration = Duration::from_secs(1);

/// How often it is looked for somebody who could go: soon enough that nobody sees the difference.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the head of a request may take, and so how long a connection may be idle.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_MAX: usize = 16 << 10;

/// How long a client may leave what it is sent unread.
const UNREAD_WITHIN: Duration = Duration::from_secs(60);

/// How long answers may take to leave when the daemon ends: they are in the kernel's hands at once,
/// unless a client does not read.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);

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
        let wake = asker.wake().clone();
        Server::spawn(wake, move |orders| run(doors, orders, asker, user))
    }

    fn spawn(
        wake: Wake,
        body: impl FnOnce(mpsc::Receiver<StdListener>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Server> {
        let (orders, given) = mpsc::channel(ORDERS_MAX);
        let (alive, end) = sync_channel(0);
        let farewell = Farewell { alive: Some(alive), wake };
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _farewell = farewell;
                body(given)
            })?;
        Ok(Server { orders, end, thread })
    }

    /// Whether it has ended although nobody asked it to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Why it has ended, once it has, for people.
    #[must_use]
    pub fn why(self) -> String {
        match self.thread.join() {
            Ok(Ok(())) => "nobody knows why".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked, see above".to_owned(),
        }
    }

    /// Has it take its clients from another socket from here on. Returns whether it will.
    #[must_use]
    pub fn listen(&self, listener: StdListener) -> bool {
        self.orders.try_send(listener).is_ok()
    }

    /// Has it end once the answers that it has are on their way, within half a second; it rings when
    /// it [has ended](Server::has_ended). What it asks until then is to be answered.
    pub fn end(&mut self) {
        // Nobody is at the other end of this one.
        self.orders = mpsc::channel(1).0;
    }
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
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            connections: JoinSet::new(),
            is_ending,
        };
        let control = Door::new(doors.control)?;
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
    strangers: Arc<Semaphore>,
    connections: JoinSet<()>,
    /// Changed when everybody has to go.
    is_ending: watch::Receiver<()>,
}

/// So many of one kind, and what they can ask.
struct Room {
    router: Router,
    most: usize,
    served: Arc<Semaphore>,
    /// Who is served.
    guests: Arc<Guests>,
    /// Who waits to be served, or is told that there are too many.
    hall: Arc<Semaphore>,
}

impl Room {
    fn new(router: Router, most: usize) -> Room {
        let served = Arc::new(Semaphore::new(most));
        let hall = Arc::new(Semaphore::new(HALL_MAX));
        Room { router, most, served, guests: Arc::default(), hall }
    }

    /// A place in the hall; without one nobody is taken from the socket's queue.
    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.hall).acquire_owned().await.map_err(io::Error::other)
    }
}

impl House {
    /// Takes clients until it is told to end.
    async fn receive(
        &mut self,
        control: Door,
        admin: Option<TcpListener>,
        mut orders: mpsc::Receiver<StdListener>,
    ) -> io::Result<()> {
        let mut control = Some(control);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(another) => control = Some(Door::new(another)?),
                    None => return Ok(()),
                },
                client = client(control.as_ref(), &self.clients) => match client {
                    Ok((Some(stream), place)) => self.admit_client(stream, place),
                    // It was shut down. The loop sees that too and sends another.
                    Ok((None, _)) => control = None,
                    // There is no descriptor left, mostly.
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                monitor = monitor(admin.as_ref(), &self.monitors) => match monitor {
                    Ok((stream, place)) => self.admit(stream, place, Kind::Monitor),
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                // Their memory goes as they go.
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    fn admit_client(&mut self, stream: UnixStream, place: OwnedSemaphorePermit) {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if uid.is_ok_and(|uid| uid == self.user || uid == 0) {
            return self.admit(stream, place, Kind::Client);
        }
        // They get nobody's place, and no more than an answer.
        let Ok(permit) = Arc::clone(&self.strangers).try_acquire_owned() else { return };
        let detail = "the control socket serves the user that shepherd runs as, and root";
        let refusal = refusal(ProblemKind::Forbidden, 403, detail);
        let guest = Arc::new(Guest::new(clock::now()));
        self.connections.spawn(serve(stream, refusal, permit, guest, self.is_ending.clone()));
    }

    fn admit(&mut self, stream: impl Stream, place: OwnedSemaphorePermit, kind: Kind) {
        let is_ending = self.is_ending.clone();
        let room = match kind {
            Kind::Client => &self.clients,
            Kind::Monitor => &self.monitors,
        };
        let (router, most) = (room.router.clone(), room.most);
        let served = Arc::clone(&room.served);
        let guests = Arc::clone(&room.guests);
        self.connections.spawn(async move {
            if let Some(permit) = turn(served, &guests).await {
                drop(place);
                let guest = guests.enter(clock::now());
                serve(stream, router, permit, guest, is_ending).await;
            } else {
                let detail = format!("{most} clients are served; try again in a moment");
                let refusal = refusal(ProblemKind::TooBusy, 503, &detail);
                let guest = Arc::new(Guest::new(clock::now()));
                serve(stream, refusal, place, guest, is_ending).await;
            }
        });
    }
}

/// A place among those who are served, if need be that of somebody who keeps us waiting. All may be
/// waiting for us instead, and for too long.
async fn turn(served: Arc<Semaphore>, guests: &Guests) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(&served).try_acquire_owned() {
        return Some(permit);
    }
    let mut acquired = std::pin::pin!(served.acquire_owned());
    let acquired = async {
        loop {
            guests.dismiss_longest();
            tokio::select! {
                permit = acquired.as_mut() => return permit.ok(),
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    };
    timeout(TURN_WITHIN, acquired).await.ok().flatten()
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

type Placed<Stream> = io::Result<(Stream, OwnedSemaphorePermit)>;

/// The next client, with its place; never, where nobody can come.
async fn client(door: Option<&Door>, room: &Room) -> Placed<Option<UnixStream>> {
    let Some(door) = door else { return pending().await };
    let place = room.place().await?;
    Ok((door.accept().await?, place))
}

/// The same of monitoring.
async fn monitor(listener: Option<&TcpListener>, room: &Room) -> Placed<TcpStream> {
    let Some(listener) = listener else { return pending().await };
    let place = room.place().await?;
    Ok((listener.accept().await?.0, place))
}

/// Answers everything with a problem.
fn refusal(kind: ProblemKind, status: u16, detail: &str) -> Router {
    let problem = problem::of(kind, status, detail);
    Router::new().fallback(async || ([("connection", "close")], problem))
}

async fn serve(
    stream: impl Stream,
    router: Router,
    _permit: OwnedSemaphorePermit,
    guest: Arc<Guest>,
    mut is_ending: watch::Receiver<()>,
) {
    let stream = TokioIo::new(Patient::new(stream, UNREAD_WITHIN, Arc::clone(&guest)));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_MAX)
            .serve_connection(stream, guest::noting(router, Arc::clone(&guest)))
    );
    // How it ends is the client's concern.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = guest.leaves() => return,
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
            let mut server = Server::start(doors, asker.clone(), our_user()).expect("a thread");
            let mut answer = String::new();
            monitor.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
            server.end();
            assert_eq!(server.why(), "nobody knows why");
        }
        drop(asker);
        answers.join().expect("all was answered");
    }

    #[test]
    fn a_thread_that_panics_rings_and_can_be_asked_why() {
        let wake = Wake::new().expect("a descriptor");
        let (ends, told_to) = sync_channel::<()>(0);
        let server = Server::spawn(wake.clone(), move |_| {
            let _ = told_to.recv();
            panic!("as the test wants it");
        });
        let server = server.expect("a thread");
        assert!(!server.has_ended());
        drop(ends);
        let reactor = crate::os::reactor::Reactor::new().expect("a descriptor");
        reactor.add(&wake, 7).expect("added");
        let rung = reactor.wait(Some(Duration::from_secs(30))).expect("waited");
        assert_eq!(rung, [7]);
        assert!(server.has_ended());
        assert_eq!(server.why(), "it panicked, see above");
    }

    #[test]
    fn a_thread_that_is_told_to_end_does() {
        let wake = Wake::new().expect("a descriptor");
        let server = Server::spawn(wake, |mut orders| {
            assert!(orders.blocking_recv().is_none());
            Ok(())
        });
        let mut server = server.expect("a thread");
        server.end();
        assert_eq!(server.why(), "nobody knows why");
    }
}
