//! The page for Prometheus: from what status shows and what was counted to text. Pure.
//!
//! Labels are names of services and their sockets, numbers of slots and words from short lists, never
//! pids or numbers of workers: a series lives as long as its service. Each series is there from the start, at zero,
//! so that a first failure is a change and not a birth.

mod counters;

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::wire::{
    Member, MemberState, Messages, Service, ServiceState, Status, Worker, WorkerState,
};

pub use counters::{Counters, Outcome};

use counters::{Ended, Histogram, StartFailure, Tally};

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, for those who ask for it.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everybody reads.
    Prometheus,
}

impl Format {
    /// The best that whoever sent this `Accept` reads. What is read less gladly than another is not
    /// told apart: Prometheus names OpenMetrics only where it prefers it.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// The whole page.
#[must_use]
pub fn page(status: Status, counters: Counters, format: Format) -> String {
    let mut registry = Registry::with_prefix("shepherd");
    registry.register_collector(Box::new(Page { status, counters }));
    let mut page = String::new();
    let written = match format {
        Format::OpenMetrics => text::encode(&mut page, &registry),
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
    };
    // A string takes everything.
    debug_assert_eq!(written, Ok(()));
    page
}

#[derive(Debug)]
struct Page {
    status: Status,
    counters: Counters,
}

/// What a family of series is called and is about.
struct Family {
    /// Without `shepherd_` before it and the unit or `_total` after it.
    name: &'static str,
    /// One sentence.
    help: &'static str,
    unit: Option<Unit>,
}

const fn family(name: &'static str, help: &'static str) -> Family {
    Family { name, help, unit: None }
}

const fn seconds(name: &'static str, help: &'static str) -> Family {
    Family { name, help, unit: Some(Unit::Seconds) }
}

const fn bytes(name: &'static str, help: &'static str) -> Family {
    Family { name, help, unit: Some(Unit::Bytes) }
}

/// The labels of one series.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer { encoder: &mut encoder };
        self.daemon(&mut writer)?;
        self.services(&mut writer)?;
        self.workers(&mut writer)?;
        self.messages(&mut writer)?;
        self.sockets(&mut writer)?;
        self.reloads(&mut writer)
    }
}

impl Page {
    fn daemon(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let daemon = &self.status.daemon;
        let Counters { requests, turns, longest_turn, lines_dropped, events_dropped, .. } =
            &self.counters;
        writer.info("build", "The version of shepherd", &[("version", &daemon.version)])?;
        writer.gauge(&seconds("uptime", "How long shepherd has been running"), daemon.up)?;
        let stopping = family("stopping", "Whether a stop was asked for");
        writer.integers(&stopping, [(Labels::new(), u64::from(daemon.stopping))])?;
        let longest = "The longest turn of the loop since the start, without what it waited";
        writer.gauge(&seconds("loop_turn_longest", longest), longest_turn.as_secs_f64())?;
        let took = "How long turns of the loop took, without what they waited";
        writer.histograms(&seconds("loop_turn", took), [(Labels::new(), turns)])?;
        let answered = "What clients have asked to be done, by what came of it";
        writer.counters(
            &family("control_requests", answered),
            Outcome::ALL.map(|(outcome, name)| (vec![("outcome", name)], count(requests, outcome))),
        )?;
        let dropped = "Lines of workers' output that were dropped because nobody read them";
        let dropped = family("output_dropped_lines", dropped);
        writer.counters(&dropped, [(Labels::new(), *lines_dropped)])?;
        let dropped = "Events that were dropped because their reader was too slow";
        writer.counters(&family("events_dropped", dropped), [(Labels::new(), *events_dropped)])
    }

    fn services(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let services = || self.status.services.iter();
        let each = |value: fn(&Service) -> u64| services().map(move |it| (of(it), value(it)));
        writer.integers(
            &family("service_up", "Whether the service has come up and serves"),
            each(|service| u64::from(serves(&service.state))),
        )?;
        writer.integers(
            &family("service_failing", "Whether the service's workers fail again and again"),
            each(|service| u64::from(service.state == ServiceState::Failing)),
        )?;
        writer.integers(
            &family("service_reloading", "Whether a reload of the service is under way"),
            each(|service| u64::from(service.reloading.is_some())),
        )?;
        writer.integers(
            &family(
                "service_canary",
                "Whether a new generation gets a part of new connections first",
            ),
            each(|service| u64::from(service.canary.is_some())),
        )?;
        writer.integers(
            &family("service_on_probation", "Whether the generation that serves is on probation"),
            each(|service| u64::from(service.probation.is_some())),
        )?;
        writer.integers(
            &family("service_generation", "The generation that serves"),
            services().map(|service| (of(service), service.generation)),
        )?;
        writer.integers(
            &family("service_workers_wanted", "How many workers the service wants"),
            each(|service| u64::from(service.wanted)),
        )?;
        writer.integers(
            &family("service_workers_serving", "Ready workers of the generation that serves"),
            each(|service| u64::from(service.ready)),
        )?;
        let states = [
            (WorkerState::Starting, "starting"),
            (WorkerState::Ready, "ready"),
            (WorkerState::Draining, "draining"),
        ];
        writer.integers(
            &family("service_workers", "Workers of all generations by where they stand"),
            services().flat_map(|service| {
                states.each_ref().map(|(state, name)| {
                    let workers = service.workers.iter().filter(|worker| worker.state == *state);
                    (with(service, "state", name), workers.count() as u64)
                })
            }),
        )?;
        writer.integers(
            &family("service_workers_stalled", "Ready workers that take nothing from their socket"),
            services().map(|service| {
                let stalled = service.workers.iter().filter(|worker| worker.stalled);
                (of(service), stalled.count() as u64)
            }),
        )?;
        writer.integers(
            &family("service_slots_backing_off", "Slots that wait for their next worker"),
            services().map(|service| (of(service), service.backing_off.len() as u64)),
        )
    }

    fn workers(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let tallies = self.tallies();
        let starts = family("worker_starts", "Workers whose program was started");
        writer.counters(&starts, tallies.iter().map(|(it, tally)| (of(it), tally.starts)))?;
        writer.counters(
            &family("worker_restarts", "Workers started in the place of one that ended unasked"),
            self.status.services.iter().map(|service| (of(service), service.restarts)),
        )?;
        writer.counters(
            &family("worker_start_failures", "Workers that never were ready, by why"),
            tallies.iter().flat_map(|(service, tally)| {
                StartFailure::ALL.map(|(failure, name)| {
                    (with(service, "why", name), count(&tally.start_failures, failure))
                })
            }),
        )?;
        writer.counters(
            &family("worker_exits", "Workers that exited, by how, except those that were killed"),
            tallies.iter().flat_map(|(service, tally)| {
                Ended::ALL.map(|(how, name)| (with(service, "how", name), count(&tally.exits, how)))
            }),
        )?;
        let killed =
            "Times that all processes of a worker were killed, since some outlived its time";
        let killed = family("worker_kills", killed);
        writer.counters(&killed, tallies.iter().map(|(it, tally)| (of(it), tally.kills)))?;
        writer.histograms(
            &seconds("worker_start_duration", "How long workers took from their start to ready"),
            tallies.iter().map(|(service, tally)| (of(service), &tally.start_times)),
        )?;
        writer.histograms(
            &seconds("worker_drain_duration", "How long workers took from being asked to the exit"),
            tallies.iter().map(|(service, tally)| (of(service), &tally.drain_times)),
        )?;
        let memory = by_slot(&self.status, |worker| worker.memory);
        let held = "What all processes of the slot's workers have in memory, where it can be read";
        writer.integers(
            &bytes("worker_memory", held),
            memory.iter().map(|((service, slot), bytes)| {
                (vec![("service", *service), ("slot", slot.as_str())], *bytes)
            }),
        )?;
        let open = by_slot(&self.status, |worker| worker.connections.map(u64::from));
        let dispatched = self.status.services.iter();
        let dispatched = || dispatched.clone().filter_map(|it| Some((it, it.dispatched?)));
        writer.integers(
            &family(
                "connections_held",
                "Connections that shepherd accepted and no worker took yet",
            ),
            dispatched().map(|(service, it)| (of(service), it.held)),
        )?;
        writer.counters(
            &family("connections_taken", "Connections that shepherd accepted and workers took"),
            dispatched().map(|(service, it)| (of(service), it.taken)),
        )?;
        let again = "Times that a connection was given to another worker than the one before";
        writer.counters(
            &family("connections_given_again", again),
            dispatched().map(|(service, it)| (of(service), it.given_again)),
        )?;
        let held = "Connections that the slot's workers have accepted and not closed";
        writer.integers(
            &family("worker_connections", held),
            open.iter().map(|((service, slot), count)| {
                (vec![("service", *service), ("slot", slot.as_str())], *count)
            }),
        )
    }

    fn messages(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let tallies = self.tallies();
        writer.counters(
            &family("messages_sent", "Messages that workers sent and that were understood"),
            tallies.iter().map(|(service, tally)| (of(service), tally.messages.sent)),
        )?;
        writer.counters(
            &family("messages_received", "Messages that were given to the channels of workers"),
            tallies.iter().map(|(service, tally)| (of(service), tally.messages.received)),
        )?;
        let lost = "Messages for workers that did not read, and of workers that came to nothing";
        writer.counters(
            &family("messages_lost", lost),
            tallies.iter().flat_map(|(service, tally)| {
                let Messages { dropped, not_understood, undeliverable, .. } = tally.messages;
                [
                    ("dropped", dropped),
                    ("not-understood", not_understood),
                    ("undeliverable", undeliverable),
                ]
                .map(|(why, count)| (with(service, "why", why), count))
            }),
        )?;
        let waiting = "Messages that wait until their reader reads others";
        writer.integers(
            &family("messages_waiting", waiting),
            tallies.iter().map(|(service, tally)| (of(service), tally.messages.waiting)),
        )
    }

    fn sockets(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let mut each = |family: &Family, value: fn(&Member) -> Option<u32>| {
            let sums = by_socket(&self.status, value);
            let series = sums.iter().map(|((service, socket), sum)| {
                (vec![("service", *service), ("socket", *socket)], *sum)
            });
            writer.integers(family, series)
        };
        let waiting = "Connections that wait to be accepted";
        each(&family("socket_queue_connections", waiting), |member| member.queued)?;
        let most = "Connections that may wait to be accepted before further ones are dropped";
        each(&family("socket_queue_limit_connections", most), |member| {
            member.queue_max.filter(|_| member.may_be_found())
        })?;
        let waiting = "What datagrams that wait to be received take";
        each(&bytes("socket_queue", waiting), |member| member.queued_bytes)?;
        let most = "What datagrams that wait may take before further ones are dropped";
        each(&bytes("socket_queue_limit", most), |member| {
            member.queue_max_bytes.filter(|_| member.may_be_found())
        })?;
        let states = [
            (MemberState::Serving, "serving"),
            (MemberState::Parked, "parked"),
            (MemberState::Stalled, "stalled"),
            (MemberState::Draining, "draining"),
            (MemberState::Spare, "spare"),
            (MemberState::Closing, "closing"),
            (MemberState::Down, "down"),
        ];
        let counts = states.each_ref().map(|(state, name)| {
            let is_so = |member: &Member| u32::from(member.state.as_ref() == Some(state));
            (*name, by_socket(&self.status, |member| Some(is_so(member))))
        });
        let series = counts.iter().flat_map(|(state, counts)| {
            counts.iter().map(|((service, socket), count)| {
                (vec![("service", *service), ("socket", *socket), ("state", *state)], *count)
            })
        });
        let members = "The kernel's sockets that workers get, by where they stand";
        writer.integers(&family("socket_members", members), series)
    }

    fn reloads(&self, writer: &mut Writer<'_, '_>) -> fmt::Result {
        let tallies = self.tallies();
        writer.counters(
            &family("reloads", "Reloads that have ended, by how"),
            tallies.iter().flat_map(|(service, tally)| {
                [("committed", tally.committed), ("aborted", tally.aborted)]
                    .map(|(outcome, count)| (with(service, "outcome", outcome), count))
            }),
        )?;
        writer.histograms(
            &seconds("reload_duration", "How long reloads took that were committed"),
            tallies.iter().map(|(service, tally)| (of(service), &tally.reload_times)),
        )
    }

    /// What was counted of each service that is there; of some nothing was.
    fn tallies(&self) -> Vec<(&Service, Tally)> {
        let services = self.status.services.iter();
        let tally = |service: &Service| self.counters.services.get(&service.name).cloned();
        services.map(|service| (service, tally(service).unwrap_or_default())).collect()
    }
}

/// Whether a service does what it is there for.
pub(super) fn serves(state: &ServiceState) -> bool {
    match state {
        ServiceState::Up | ServiceState::Reloading => true,
        ServiceState::Waiting
        | ServiceState::Starting
        | ServiceState::Failing
        | ServiceState::Stopping
        | ServiceState::Stopped
        | ServiceState::Other(_) => false,
    }
}

/// By service and slot: at a reload two workers have one.
fn by_slot(
    status: &Status,
    value: impl Fn(&Worker) -> Option<u64>,
) -> BTreeMap<(&str, String), u64> {
    let mut sums = BTreeMap::new();
    for service in &status.services {
        for worker in &service.workers {
            if let Some(value) = value(worker) {
                let slot = (service.name.as_str(), worker.slot.to_string());
                let sum: &mut u64 = sums.entry(slot).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
    sums
}

/// By service and socket, all its members together. One without a name is called by its address.
fn by_socket(
    status: &Status,
    value: impl Fn(&Member) -> Option<u32>,
) -> BTreeMap<(&str, &str), u64> {
    let mut sums = BTreeMap::new();
    for service in &status.services {
        for socket in &service.sockets {
            for value in socket.members.iter().filter_map(&value) {
                let name = socket.name.as_ref().unwrap_or(&socket.address);
                let sum: &mut u64 = sums.entry((service.name.as_str(), name.as_str())).or_default();
                *sum = sum.saturating_add(value.into());
            }
        }
    }
    sums
}

fn count<Key: Ord + Copy>(counts: &BTreeMap<Key, u64>, key: Key) -> u64 {
    counts.get(&key).copied().unwrap_or(0)
}

fn of(service: &Service) -> Labels<'_> {
    vec![("service", &service.name)]
}

fn with<'a>(service: &'a Service, name: &'static str, value: &'a str) -> Labels<'a> {
    vec![("service", &service.name), (name, value)]
}

/// Writes families, each once and with all its series.
struct Writer<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Writer<'_, '_> {
    fn gauge(&mut self, family: &Family, value: f64) -> fmt::Result {
        self.write(family, MetricType::Gauge, [(Labels::new(), ConstGauge::new(value))])
    }

    fn integers<'l>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let gauges = series.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.write(family, MetricType::Gauge, gauges)
    }

    fn counters<'l>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let counters = series.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.write(family, MetricType::Counter, counters)
    }

    fn histograms<'l, 'h>(
        &mut self,
        family: &Family,
        series: impl IntoIterator<Item = (Labels<'l>, &'h Histogram)>,
    ) -> fmt::Result {
        self.write(family, MetricType::Histogram, series)
    }

    fn info(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let info = Info::new(labels.to_vec());
        self.write(&family(name, help), MetricType::Info, [(Labels::new(), info)])
    }

    fn write<'l, Series: EncodeMetric>(
        &mut self,
        Family { name, help, unit }: &Family,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels<'l>, Series)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut described = self.encoder.encode_descriptor(name, &help, unit.as_ref(), kind)?;
        for (labels, one) in series {
            one.encode(described.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl EncodeMetric for &Histogram {
    fn encode(&self, mut encoder: prometheus_client::encoding::MetricEncoder) -> fmt::Result {
        let buckets = self.buckets();
        encoder.encode_histogram::<NoLabelSet>(self.sum(), self.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
