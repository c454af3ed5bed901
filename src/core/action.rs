//! Everything shepherd can do. The core returns actions; the caller performs them in order.

use super::drain::Look;
use super::event::Mode;
use super::ids::{GenerationId, MemberId, RequestId, ServiceId, SlotId, SocketId, WorkerId};
use super::notice::Notice;
use super::policy::{Algorithm, Signal};
use super::request::Response;
use super::steering::GroupId;

/// One thing to do. None of them can fail back into the core: what goes wrong becomes an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the definition of a service again and keep it under this generation's number, and bind
    /// sockets, all or none. Answered by `Prepared` or `PrepareFailed`.
    Prepare {
        /// Whose definition.
        service: ServiceId,
        /// Its number.
        generation: GenerationId,
        /// Nothing is read: it is the same as this one.
        like: Option<GenerationId>,
        /// The sockets to bind, as they were bound before, and what each is called from here on.
        bind: Vec<NewMember>,
    },
    /// Read the configuration again, bind the sockets that are new in it, all of them or none, and
    /// read the first definitions of services that are. Answered before anything else happens, by
    /// `ConfigurationRead` or `ConfigurationFailed`.
    ReadConfiguration {
        /// The reload that wants it.
        request: RequestId,
        /// What it says of these services counts; without them all that it says.
        services: Option<Vec<ServiceId>>,
        /// Kernel sockets that are new get numbers from here on.
        free: MemberId,
    },
    /// Nothing is left of a service and nothing will be: drop all that is known of it.
    Remove(ServiceId),
    /// Start a worker. Answered by `Started` or `SpawnFailed`.
    Spawn(Spawn),
    /// Look whether a worker waits on one of its sockets. Answered by `Probed`.
    Probe(WorkerId),
    /// Look what somebody may have changed on a socket. Answered by `Inspected`.
    Inspect {
        /// Which one.
        member: MemberId,
        /// The worker that has just become ready; `None` when another has ended.
        by: Option<WorkerId>,
    },
    /// Call listen(2) again with the configured backlog. Answered by `Listens`, or by `RepairFailed` if
    /// that does not go.
    Listen(MemberId),
    /// Have a TCP socket that we bound stop listening, by shutdown(2): who connects is refused, and so
    /// is who waits. It stays bound.
    StopListening(MemberId),
    /// Bind a new socket in the place of one that cannot listen any more or lost its path; both are
    /// there until the old one is closed. Answered by `Renewed`, `Back` or `RepairFailed`.
    Renew {
        /// The old one.
        from: MemberId,
        /// What the new one is called.
        to: MemberId,
    },
    /// Bind the sockets that a slot has for itself, all of them or none; they listen before it is
    /// answered. Answered by `SlotBound` or `SlotNotBound`.
    BindSlot {
        /// Whose slot.
        service: ServiceId,
        /// The generation whose workers get them; none where those of all do.
        generation: Option<GenerationId>,
        /// Which slot.
        slot: SlotId,
        /// What the new ones are called.
        members: Vec<(SocketId, MemberId)>,
    },
    /// Tell the proxy in front of a service which of its slots have a ready worker. Answered by
    /// `Published`.
    Publish {
        /// Whose slots.
        service: ServiceId,
        /// The generation that serves, whose definition says how. Where that is forgotten, it is as
        /// in the round before.
        generation: GenerationId,
        /// The number of this round, for its answer.
        number: u64,
        /// Which.
        slots: Vec<SlotId>,
    },
    /// The round under way has had its time: end it. It need not be answered.
    EndPublish {
        /// Whose.
        service: ServiceId,
    },
    /// Look which of these workers hold a socket, and wait on it. Answered by `Held`.
    FindHolders {
        /// Which socket.
        member: MemberId,
        /// The same as they were given it: another, if it was bound anew since.
        given: MemberId,
        /// Which workers.
        workers: Vec<WorkerId>,
    },
    /// Bind sockets that no worker gets, to be at the end of their groups; all of them or none.
    /// Answered by `SparesBound`.
    BindSpares {
        /// Whose.
        service: ServiceId,
        /// What the new ones are called.
        members: Vec<NewMember>,
    },
    /// Have the kernel choose among the members of a group by these shares, see
    /// `SO_ATTACH_REUSEPORT_CBPF` in socket(7).
    Steer {
        /// Which group.
        group: GroupId,
        /// All its members, in the kernel's order.
        shares: Vec<Share>,
    },
    /// From here on these are given the connections of a service that shepherd accepts, and nobody
    /// else is. What others were given before is theirs.
    Rotate {
        /// Whose connections.
        service: ServiceId,
        /// Who is given them.
        rotation: Rotation,
    },
    /// Look for how many more workers there is memory. Answered by `Weighed`.
    Weigh {
        /// Whose.
        service: ServiceId,
        /// The generation that is to be started, for the answer.
        generation: GenerationId,
        /// Workers that serve: one more is taken to need what they do.
        workers: Vec<WorkerId>,
    },
    /// Look what is left of draining sockets and workers. Answered by `DrainSeen`.
    LookAtDrain {
        /// Whose.
        service: ServiceId,
        /// What is to be looked at.
        look: Look,
    },
    /// Look what waits on sockets of which each is one worker's. Answered by `QueuesSeen`, before
    /// anything else happens.
    LookAtQueues {
        /// Whose.
        service: ServiceId,
        /// Which sockets.
        members: Vec<MemberId>,
    },
    /// Set or clear `O_NONBLOCK`, for all who share the socket.
    SetMode(MemberId, Mode),
    /// Begin the check that its service's author asked for. Answered by one `Checked`, in any time.
    Check(WorkerId),
    /// The check under way has had its time, or nobody waits for it any more: end it. What it saw
    /// until then is its answer. A check of a worker that is gone ends without being told.
    EndCheck(WorkerId),
    /// Tell a worker over its channel to finish what it has and to leave. `ChannelEnded` follows when it
    /// has closed that, or cannot be told.
    Disconnect(WorkerId),
    /// Send a signal to a worker's main process.
    Signal(WorkerId, Signal),
    /// Send a signal to every process of a worker's tree.
    SignalTree(WorkerId, Signal),
    /// Send KILL to every process of a worker's tree until none is left.
    KillTree(WorkerId),
    /// Close our copy of a socket; a unix path that is ours goes with it. Answered by `Closed`.
    Close(MemberId),
    /// Nobody runs this definition and nobody will: drop it.
    Forget {
        /// Whose definition.
        service: ServiceId,
        /// Its number.
        generation: GenerationId,
    },
    /// The outcome of a request.
    Respond(RequestId, Response),
    /// Tell the service manager above us.
    Announce(Announcement),
    /// Something a user should hear of.
    Notice(Notice),
    /// Everything is stopped and gone: end the daemon.
    Finish,
}

/// What a member of a group gets of new connections, measured against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which member.
    pub member: MemberId,
    /// How much; 0 is nothing.
    pub weight: u32,
}

/// Where shepherd accepts for a service, and whom it gives what comes there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotation {
    /// How it chooses among them.
    pub algorithm: Algorithm,
    /// The sockets, whether or not anybody serves what comes there.
    pub members: Vec<MemberId>,
    /// Those who are ready for it, by their numbers.
    pub workers: Vec<Turn>,
}

/// One who is given connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: SlotId,
    /// Of which sockets.
    pub members: Vec<MemberId>,
}

/// A kernel socket to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMember {
    /// Behind which socket.
    pub socket: SocketId,
    /// Whose it is alone, if it is a slot's.
    pub slot: Option<SlotId>,
    /// What it is called.
    pub member: MemberId,
}

/// A worker to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// The worker.
    pub worker: WorkerId,
    /// Its service.
    pub service: ServiceId,
    /// The slot it fills.
    pub slot: SlotId,
    /// The definition it runs.
    pub generation: GenerationId,
    /// The sockets it gets, in order, as descriptors from 3 on.
    pub members: Vec<MemberId>,
    /// The sockets whose connections it is given, when it is ready, by a channel that it gets then.
    pub dispatched: Vec<MemberId>,
}

/// What the service manager above us is told, see sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// `READY=1`: every service has come up once, and no reload is under way.
    Ready,
    /// `RELOADING=1`: a reload has begun.
    Reloading,
    /// `STOPPING=1`, with the longest time that the stop can take.
    Stopping(std::time::Duration),
    /// `STATUS=`: one line for people.
    Status(String),
}
