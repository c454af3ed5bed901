//! The fake kernel's sockets, which workers spoil for each other.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::event::{Again, Backlog, Mode, Repair, SocketEvent, SocketState};
use shepherd::core::ids::{MemberId, SocketId};
use shepherd::core::policy::Policy;

use crate::fate::Deed;
use crate::script::Script;

/// The configured backlog of every socket.
const BACKLOG: u32 = 4096;

/// All that are open, as the kernel knows them.
pub(crate) struct FakeSockets {
    sockets: BTreeMap<MemberId, FakeSocket>,
    /// Those that are TCP.
    tcp: BTreeSet<SocketId>,
}

/// One kernel socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FakeSocket {
    pub mode: Mode,
    pub backlog: u32,
    /// What brings it back: it is TCP, which shows its backlog, or a unix socket.
    kind: Repair,
    shut_down: bool,
    path_gone: bool,
}

impl FakeSocket {
    fn fresh(kind: Repair) -> FakeSocket {
        let (shut_down, path_gone) = (false, false);
        FakeSocket { mode: Mode::Blocking, backlog: BACKLOG, kind, shut_down, path_gone }
    }

    pub(crate) fn has_its_backlog(self) -> bool {
        self.backlog == BACKLOG
    }

    pub(crate) fn is_whole(self) -> bool {
        !self.shut_down && !self.path_gone
    }
}

impl FakeSockets {
    /// Every other socket is a unix one, unless it is steered. None is open yet.
    pub(crate) fn new(policies: &[Policy], is_steered: impl Fn(SocketId) -> bool) -> FakeSockets {
        let all = policies.iter().flat_map(|policy| &policy.sockets).map(|socket| socket.id);
        let tcp = all.filter(|&socket| socket.0 % 2 == 1 || is_steered(socket)).collect();
        FakeSockets { sockets: BTreeMap::new(), tcp }
    }

    pub(crate) fn bind(&mut self, socket: SocketId, member: MemberId) {
        let kind = if self.tcp.contains(&socket) { Repair::Listen } else { Repair::Bind };
        self.sockets.insert(member, FakeSocket::fresh(kind));
    }

    pub(crate) fn get(&self, member: MemberId) -> Option<&FakeSocket> {
        self.sockets.get(&member)
    }

    /// A worker does it to all that it was given. Returns those that are broken by it.
    pub(crate) fn suffer(&mut self, members: &[MemberId], deed: Deed) -> Vec<MemberId> {
        let mut broken = Vec::new();
        for member in members {
            let Some(socket) = self.sockets.get_mut(member) else {
                continue;
            };
            let before = *socket;
            match deed {
                Deed::SetMode(mode) => socket.mode = mode,
                Deed::Listen(backlog) => socket.backlog = backlog,
                Deed::ShutDown => socket.shut_down = true,
                Deed::Unlink => socket.path_gone |= socket.kind == Repair::Bind,
            }
            if before.is_whole() && !socket.is_whole() {
                broken.push(*member);
            }
        }
        broken
    }

    /// What a look at it would tell.
    pub(crate) fn broken(&self, member: MemberId) -> Option<SocketEvent> {
        match self.sockets.get(&member)? {
            FakeSocket { shut_down: true, kind, .. } => Some(SocketEvent::ShutDown(*kind)),
            FakeSocket { path_gone: true, .. } => Some(SocketEvent::PathGone),
            FakeSocket { .. } => None,
        }
    }

    pub(crate) fn inspect(&self, member: MemberId) -> Option<SocketState> {
        let socket = self.sockets.get(&member)?;
        let backlog = match socket {
            FakeSocket { kind: Repair::Bind, .. } | FakeSocket { shut_down: true, .. } => {
                Backlog::Unseen
            }
            FakeSocket { backlog: BACKLOG, .. } => Backlog::AsSet,
            FakeSocket { backlog, .. } => Backlog::Changed { to: *backlog, from: BACKLOG },
        };
        Some(SocketState { mode: socket.mode, backlog })
    }

    /// Returns what is answered, if anything.
    pub(crate) fn listen(&mut self, member: MemberId, script: &mut Script) -> Option<SocketEvent> {
        let socket = self.sockets.get_mut(&member)?;
        if socket.shut_down && socket.kind == Repair::Listen && script.one_in(8) {
            let reason = "Address already in use".to_owned();
            let (repair, again) = (Repair::Listen, Again::Later);
            return Some(SocketEvent::RepairFailed { repair, reason, again });
        }
        socket.backlog = BACKLOG;
        socket.shut_down &= socket.kind == Repair::Bind;
        None
    }

    pub(crate) fn renew(
        &mut self,
        from: MemberId,
        to: MemberId,
        script: &mut Script,
    ) -> Option<SocketEvent> {
        let socket = self.sockets.get_mut(&from)?;
        if socket.is_whole() {
            return Some(SocketEvent::Back);
        }
        let failed = |reason: &str, again| {
            let reason = reason.to_owned();
            Some(SocketEvent::RepairFailed { repair: Repair::Bind, reason, again })
        };
        match script.below(16) {
            1 | 2 => return failed("the directory `/run/x` does not exist", Again::Later),
            3 | 6 => {
                // Whoever had moved the file brings it back meanwhile.
                socket.path_gone = false;
                return failed("the directory `/run/x` does not exist", Again::Later);
            }
            4 => return failed("`nginx` (pid 7) listens on it", Again::WhenAsked),
            5 if script.one_in(4) => return failed("it was handed over", Again::Never),
            _ => {}
        }
        self.sockets.insert(to, FakeSocket::fresh(Repair::Bind));
        Some(SocketEvent::Renewed { to })
    }

    pub(crate) fn set_mode(&mut self, member: MemberId, mode: Mode) {
        if let Some(socket) = self.sockets.get_mut(&member) {
            socket.mode = mode;
        }
    }

    pub(crate) fn close(&mut self, member: MemberId) {
        self.sockets.remove(&member);
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.sockets.keys().copied()
    }
}
