//! The fake kernel's sockets, which workers spoil for each other.

use std::collections::BTreeMap;

use shepherd::core::event::{Backlog, Mode, SocketState};
use shepherd::core::ids::MemberId;
use shepherd::core::policy::Policy;

use crate::fate::Deed;

/// The configured backlog of every socket.
const BACKLOG: u32 = 4096;

/// All that are open, as the kernel knows them.
pub(crate) struct FakeSockets {
    sockets: BTreeMap<MemberId, FakeSocket>,
}

/// One kernel socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeSocket {
    pub mode: Mode,
    pub backlog: u32,
    /// Whether the kernel lets us see the backlog; half of the sockets are unix ones.
    shows_backlog: bool,
}

impl FakeSockets {
    pub(crate) fn new(policies: &[Policy]) -> FakeSockets {
        let sockets = policies.iter().flat_map(|policy| &policy.sockets).map(|socket| {
            let shows_backlog = socket.id.0 % 2 == 1;
            let fresh = FakeSocket { mode: Mode::Blocking, backlog: BACKLOG, shows_backlog };
            (MemberId(socket.id.0), fresh)
        });
        FakeSockets { sockets: sockets.collect() }
    }

    pub(crate) fn get(&self, member: MemberId) -> Option<&FakeSocket> {
        self.sockets.get(&member)
    }

    /// A worker does it to all that it was given.
    pub(crate) fn suffer(&mut self, members: &[MemberId], deed: Deed) {
        for member in members {
            let Some(socket) = self.sockets.get_mut(member) else {
                continue;
            };
            match deed {
                Deed::SetMode(mode) => socket.mode = mode,
                Deed::Listen(backlog) => socket.backlog = backlog,
            }
        }
    }

    pub(crate) fn inspect(&self, member: MemberId) -> Option<SocketState> {
        let socket = self.sockets.get(&member)?;
        let backlog = match socket {
            FakeSocket { shows_backlog: false, .. } => Backlog::Unseen,
            FakeSocket { backlog: BACKLOG, .. } => Backlog::AsSet,
            FakeSocket { backlog, .. } => Backlog::Changed { to: *backlog, from: BACKLOG },
        };
        Some(SocketState { mode: socket.mode, backlog })
    }

    pub(crate) fn listen(&mut self, member: MemberId) {
        if let Some(socket) = self.sockets.get_mut(&member) {
            socket.backlog = BACKLOG;
        }
    }

    pub(crate) fn set_mode(&mut self, member: MemberId, mode: Mode) {
        if let Some(socket) = self.sockets.get_mut(&member) {
            socket.mode = mode;
        }
    }

    pub(crate) fn close(&mut self, member: MemberId) {
        self.sockets.remove(&member);
    }
}

impl FakeSocket {
    pub(crate) fn has_its_backlog(&self) -> bool {
        self.backlog == BACKLOG
    }
}
