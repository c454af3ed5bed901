//! Notices as events that programs read. A kind is a promise: it keeps its name and its meaning.

use crate::config::text::one_line;
use crate::control::wire::{Event, Left, Level};
use crate::core::dispatch;
use crate::core::drain::Remains;
use crate::core::ids::{GenerationId, Pid, SlotId};
use crate::core::notice::{
    BatchNotice, ConfigurationNotice, DispatchNotice, LifeNotice, Loudness, MessagesNotice, Notice,
    ProvingNotice, SlotNotice, SocketNotice, StallNotice, UpstreamsNotice, Whom, WorkerName,
};

/// An event of a notice; it gets its number when it is kept.
pub(super) fn event(notice: &Notice, time: String) -> Event {
    let About { service, worker, slot, pid, generation, left } = about(notice);
    Event {
        number: 0,
        time,
        kind: kind(notice).to_owned(),
        // As the log has it: names and paths come from users and may hold anything.
        message: one_line(&notice.to_string()),
        level: match notice.loudness() {
            Loudness::Info => Level::Info,
            Loudness::Warning => Level::Warning,
            Loudness::Error => Level::Error,
        },
        service: service.or(worker.map(|worker| worker.service.as_str())).map(ToOwned::to_owned),
        slot: slot.or(worker.map(|worker| worker.slot)).map(|slot| slot.0),
        worker: worker.map(|worker| worker.worker.0),
        pid: pid.map(|pid| pid.0),
        generation: generation.map(|generation| generation.0),
        left: left.map(Left::from),
        dropped: None,
    }
}

/// The table of kinds. What each means is told by the notice it stands for, and in the description
/// of the API.
fn kind(notice: &Notice) -> &'static str {
    match notice {
        Notice::Started { .. } => "worker-started",
        Notice::Ready { .. } => "worker-ready",
        Notice::Ended { .. } => "worker-ended",
        Notice::MainChanged { .. } => "worker-main-changed",
        Notice::WorkerStopping { .. } | Notice::Farewell { .. } => "worker-stopping",
        Notice::Withdrawing { .. } => "worker-withdrawing",
        Notice::Emptying { .. } => "worker-emptying",
        Notice::StillBusy { .. } => "worker-still-busy",
        Notice::Stall { what, .. } => match what {
            StallNotice::Stalled { .. } => "worker-stalled",
            StallNotice::Free { .. } => "worker-takes-again",
        },
        Notice::Dispatch(DispatchNotice::Decided { what, .. }) => match what {
            dispatch::Notice::Stalled { .. } => "worker-stalled",
            dispatch::Notice::Answers(_) => "worker-takes-again",
            dispatch::Notice::OutOfDescriptors(_) => "worker-out-of-descriptors",
            dispatch::Notice::RefusedByAll(_) => "connections-refused",
            dispatch::Notice::Scarce => "accepting-paused",
        },
        Notice::Dispatch(DispatchNotice::Nonsense(_)) => "channel-nonsense",
        Notice::Dispatch(DispatchNotice::ChannelEnded(_)) => "channel-ended",
        Notice::Manners { .. } => "service-manners",
        Notice::NextSignal { .. } => "worker-next-signal",
        Notice::Drained { .. } => "worker-drained",
        Notice::LeftBehind { .. } => "worker-left-behind",
        Notice::Killing { .. } => "worker-killing",
        Notice::Unkillable { .. } => "worker-unkillable",
        Notice::Wrapper { .. } => "worker-wrapped",
        Notice::Configuration(what) => match what {
            ConfigurationNotice::Refused { .. } => "configuration-refused",
            ConfigurationNotice::Added { .. } => "service-added",
            ConfigurationNotice::Waiting { .. } => "service-waiting",
            ConfigurationNotice::Redefined { .. } => "service-redefined",
            ConfigurationNotice::Leaves { .. } => "service-leaving",
            ConfigurationNotice::Removed { .. } => "service-removed",
        },
        Notice::Serving { .. } => "service-serving",
        Notice::Failing { .. } => "service-failing",
        Notice::Recovered { .. } => "service-recovered",
        Notice::Signalled { .. } => "worker-signalled",
        Notice::Messages { what, .. } => match what {
            MessagesNotice::Dropping => "messages-dropped",
            MessagesNotice::ReadsAgain { .. } => "messages-read-again",
        },
        Notice::Scaled { .. } => "service-scaled",
        Notice::NotScaled { .. } => "service-not-scaled",
        Notice::ReloadQueued { .. } => "reload-queued",
        Notice::ReloadBegins { .. } => "reload-begins",
        Notice::ReloadCommitted { .. } => "reload-committed",
        Notice::ReloadAborted { .. } => "reload-aborted",
        Notice::Life { what, .. } => match what {
            LifeNotice::RestartBegins { .. } => "restart-begins",
            LifeNotice::RestartAborted { .. } => "restart-aborted",
            LifeNotice::Restarting { .. } => "service-restarting",
            LifeNotice::Stopping { .. } => "service-stopping",
            LifeNotice::Stopped { .. } => "service-stopped",
            LifeNotice::Along { .. } => "service-along",
            LifeNotice::StopsAfter { .. } => "service-stops-after",
            LifeNotice::StartBegins { .. } => "start-begins",
            LifeNotice::StartFailed { .. } => "start-failed",
        },
        Notice::Proving { what, .. } => match what {
            ProvingNotice::Canary { .. } => "canary-begins",
            ProvingNotice::Probation { .. } => "probation-begins",
            ProvingNotice::Proved { .. } => "probation-passed",
            ProvingNotice::Failed { .. } => "probation-failed",
            ProvingNotice::ByPath { .. } => "rollback-by-path",
        },
        Notice::Batch { what, .. } => match what {
            BatchNotice::Begin { .. } => "batches-begin",
            BatchNotice::ChangedOver { .. } => "batch-changed-over",
            BatchNotice::PuttingBack { .. } => "putting-back",
            BatchNotice::PutBack { .. } => "put-back",
            BatchNotice::NotPutBack { .. } => "not-put-back",
        },
        Notice::Socket { what, .. } => match what {
            SocketNotice::Backlog { .. } => "socket-backlog-changed",
            SocketNotice::Mode { .. } => "socket-mode-changed",
            SocketNotice::ModePostponed { .. } => "socket-mode-postponed",
            SocketNotice::ShutDown { .. } => "socket-shut-down",
            SocketNotice::PathGone { .. } => "socket-path-gone",
            SocketNotice::Renewed => "socket-renewed",
            SocketNotice::Back => "socket-back",
            SocketNotice::RepairFailed { .. } => "socket-repair-failed",
        },
        Notice::Slot { what, .. } => match what {
            SlotNotice::Bound { .. } => "slot-bound",
            SlotNotice::NotBound { .. } => "slot-not-bound",
        },
        Notice::Upstreams { what, .. } => match what {
            UpstreamsNotice::Told { .. } => "upstreams-told",
            UpstreamsNotice::Failed { .. } => "upstreams-failed",
            UpstreamsNotice::Late { .. } => "upstreams-late",
        },
        Notice::LameDuck { .. } => "daemon-lame-duck",
        Notice::Stopping { .. } => "daemon-stopping",
        Notice::StoppingNow { .. } => "daemon-killing",
    }
}

/// What an event is about, as far as its notice says.
#[derive(Default)]
struct About<'a> {
    /// Named by the notice itself; else it is the worker's.
    service: Option<&'a str>,
    worker: Option<&'a WorkerName>,
    /// Likewise.
    slot: Option<SlotId>,
    pid: Option<Pid>,
    generation: Option<GenerationId>,
    /// Of the worker.
    left: Option<Remains>,
}

fn about(notice: &Notice) -> About<'_> {
    let of = |worker| About { worker: Some(worker), ..About::default() };
    let all = |service| About { service: Some(service), ..About::default() };
    match notice {
        Notice::Started { worker, generation, pid } => {
            About { pid: Some(*pid), generation: Some(*generation), ..of(worker) }
        }
        Notice::StillBusy { worker, left, .. } => About { left: Some(*left), ..of(worker) },
        Notice::MainChanged { worker, pid } => About { pid: Some(*pid), ..of(worker) },
        Notice::Ready { worker, .. }
        | Notice::Ended { worker, .. }
        | Notice::Withdrawing { worker }
        | Notice::Emptying { worker, .. }
        | Notice::Stall { worker, .. }
        | Notice::WorkerStopping { worker, .. }
        | Notice::Farewell { worker, .. }
        | Notice::NextSignal { worker, .. }
        | Notice::Drained { worker, .. }
        | Notice::LeftBehind { worker, .. }
        | Notice::Killing { worker, .. }
        | Notice::Unkillable { worker }
        | Notice::Wrapper { worker, .. }
        | Notice::Messages { worker, .. }
        | Notice::Signalled { worker, .. } => of(worker),
        Notice::Dispatch(DispatchNotice::Decided { whom, .. }) => match whom {
            Whom::Worker(worker) => of(worker),
            Whom::Socket { service, .. } | Whom::Service(service) => all(service),
        },
        Notice::Dispatch(
            DispatchNotice::Nonsense(worker) | DispatchNotice::ChannelEnded(worker),
        ) => of(worker),
        Notice::Configuration(what) => About { service: what.service(), ..About::default() },
        Notice::Serving { service, .. }
        | Notice::Failing { service, .. }
        | Notice::Recovered { service }
        | Notice::Manners { service, .. }
        | Notice::Scaled { service, .. }
        | Notice::Upstreams { service, .. }
        | Notice::NotScaled { service, .. }
        | Notice::ReloadQueued { service, .. } => all(service),
        Notice::Life { service, what } => match what {
            LifeNotice::RestartBegins { generation } | LifeNotice::StartBegins { generation } => {
                About { generation: Some(*generation), ..all(service) }
            }
            LifeNotice::RestartAborted { .. }
            | LifeNotice::Restarting { .. }
            | LifeNotice::Stopping { .. }
            | LifeNotice::Stopped { .. }
            | LifeNotice::Along { .. }
            | LifeNotice::StopsAfter { .. }
            | LifeNotice::StartFailed { .. } => all(service),
        },
        Notice::Batch { service, what } => match what {
            BatchNotice::Begin { generation, .. }
            | BatchNotice::ChangedOver { generation, .. }
            | BatchNotice::PuttingBack { generation, .. }
            | BatchNotice::PutBack { generation }
            | BatchNotice::NotPutBack { generation, .. } => {
                About { generation: Some(*generation), ..all(service) }
            }
        },
        Notice::Proving { service, what } => match what {
            ProvingNotice::Canary { generation, .. }
            | ProvingNotice::Probation { generation, .. }
            | ProvingNotice::Proved { generation }
            | ProvingNotice::Failed { generation }
            | ProvingNotice::ByPath { generation, .. } => {
                About { generation: Some(*generation), ..all(service) }
            }
        },
        Notice::ReloadBegins { service, generation, .. }
        | Notice::ReloadCommitted { service, generation, .. }
        | Notice::ReloadAborted { service, generation, .. } => {
            About { generation: Some(*generation), ..all(service) }
        }
        Notice::Socket { what, .. } => match what {
            SocketNotice::Backlog { by, .. }
            | SocketNotice::Mode { by, .. }
            | SocketNotice::ShutDown { by, .. } => match &by.workers[..] {
                [worker] => of(worker),
                _ => all(&by.service),
            },
            SocketNotice::ModePostponed { by, .. } => of(by),
            SocketNotice::PathGone { .. }
            | SocketNotice::Renewed
            | SocketNotice::Back
            | SocketNotice::RepairFailed { .. } => About::default(),
        },
        Notice::Slot { service, slot, .. } => About { slot: Some(*slot), ..all(service) },
        Notice::LameDuck { .. } | Notice::Stopping { .. } | Notice::StoppingNow { .. } => {
            About::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::control::events::DROPPED;
    use crate::control::openapi::DOCUMENT;

    #[test]
    fn the_description_of_the_api_has_the_kinds_of_this_table() {
        let source = include_str!("kinds.rs");
        let table = source.split("fn kind(").nth(1).and_then(|rest| rest.split("\n}").next());
        let words = table.expect("the table").split('"').skip(1).step_by(2);
        let kinds: BTreeSet<&str> = words.chain([DROPPED]).collect();
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let described = &document["components"]["schemas"]["EventKind"]["anyOf"];
        let described = described.as_array().expect("kinds").iter();
        let described: BTreeSet<&str> =
            described.filter_map(|kind| kind["const"].as_str()).collect();
        assert_eq!(described, kinds);
        assert!(kinds.len() > 20);
    }
}
