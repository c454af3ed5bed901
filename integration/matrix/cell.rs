//! One cell: workers with certain manners, balanced in a certain way, under one kind of load, reloaded
//! again and again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    delay::Far,
    harness::{Address, Daemon, Home, Kind, Limits, Load, Report, free_port, manners},
    site::{Ticks, reload_well, stop_well, wait_only_generation, wait_serving},
};

const WORKERS: usize = 3;
/// Requests are at work at any moment.
const HANDLER: &str = "50ms";
const STREAM: Duration = Duration::from_secs(5);
/// Streams are under way all the time, so nothing is to be waited for between two reloads.
const BETWEEN_STREAMS: Duration = Duration::from_secs(1);
/// For each wait: longer than the drain timeout, after which shepherd kills.
const DEADLINE: Duration = Duration::from_secs(90);
/// Answers between two reloads.
const ANSWERS: u64 = 20;
/// Connections that the `New` clients of a cell begin in a second.
const NEW_PER_SECOND: u32 = 150;
/// So many reloads of workers that die at once find one with a request in hand, whatever the luck.
const ENOUGH_TO_LOSE: u32 = 3;

/// Where the clients are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// On the same host.
    Near,
    /// 20 ms away.
    Far,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    Generation,
    Slots,
    Shared,
}

/// What a worker does when it is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manners {
    Graceful,
    Dies,
    ShutsDown,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clients {
    New,
    Hesitant,
    Visits,
    Endless,
    Streams,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub way: Way,
    pub balance: Balance,
    pub manners: Manners,
    pub clients: Clients,
}

/// What the clients saw, and how long it took.
pub struct Outcome {
    pub report: Report,
    took: Duration,
    /// What shepherd said, for a cell that lost what it must not.
    pub log: String,
}

/// All there are. Far away there is less to see, and more to wait for.
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for balance in [Balance::Generation, Balance::Slots, Balance::Shared] {
        for manners in [Manners::Graceful, Manners::Dies, Manners::ShutsDown] {
            for clients in Clients::ALL {
                cells.push(Cell { way: Way::Near, balance, manners, clients });
                let seen_from_afar = matches!(clients, Clients::New | Clients::Hesitant);
                if seen_from_afar && balance != Balance::Shared {
                    cells.push(Cell { way: Way::Far, balance, manners, clients });
                }
            }
        }
    }
    cells
}

impl Cell {
    /// Whether no request at all may fail.
    pub fn loses_nothing(self) -> bool {
        match (self.balance, self.manners) {
            // It says goodbye itself, and needs nobody.
            (_, Manners::Graceful) => true,
            // Connections without an end are cut when the time before the stop signal is over.
            (Balance::Generation | Balance::Slots, Manners::Dies) => {
                self.clients != Clients::Endless
            }
            (Balance::Generation | Balance::Slots, Manners::ShutsDown) => true,
            (Balance::Shared, Manners::Dies | Manners::ShutsDown) => false,
        }
    }

    /// Whether some requests must fail, if the clients see anything.
    pub fn must_lose(self, reloads: u32) -> bool {
        self.balance == Balance::Shared
            && self.manners == Manners::Dies
            && self.clients == Clients::New
            && reloads >= ENOUGH_TO_LOSE
    }

    /// Reloads so often. What does not hold, but for requests that fail, is a panic.
    pub fn run(self, reloads: u32, far: Option<&Far>) -> Outcome {
        let home = Home::new();
        let port = free_port();
        let run = Daemon::run().home(&home);
        let (run, address) = match (self.way, far) {
            (Way::Far, Some(far)) => (run.binary(far.binary(&home)), far.address(port.number())),
            (Way::Near, _) | (_, None) => (run, Address::from(port.v4())),
        };
        let begin = Instant::now();
        let daemon = run
            .workers(WORKERS)
            .listen(&address)
            .args(["--balance", &self.balance.to_string()])
            .args(self.options())
            .command(manners(&[self.manners.argument(), "--handler", HANDLER]))
            .deadline(DEADLINE)
            .start();
        wait_serving(&daemon, WORKERS);
        let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
        let load = Load::start_with(limits, &address, self.clients.load(self.way));
        load.wait_ok(self.clients.first_answers());
        let mut ticks = Ticks::every(BETWEEN_STREAMS);
        for generation in 2..=reloads + 1 {
            reload_well(&daemon);
            if self.clients == Clients::Streams {
                ticks.next();
            } else {
                wait_only_generation(&daemon, generation, WORKERS);
                load.wait_ok(ANSWERS);
            }
        }
        wait_only_generation(&daemon, reloads + 1, WORKERS);
        let report = load.stop();
        stop_well(&daemon);
        let lines: Vec<String> = daemon.lines().into_iter().map(|line| line.text).collect();
        Outcome { report, took: begin.elapsed(), log: lines.join("\n") }
    }

    /// Connections without an end would be waited for in vain, 15 s at each reload.
    fn options(self) -> &'static [&'static str] {
        if self.clients == Clients::Endless && self.balance != Balance::Shared {
            &["--before-stop", "1s"]
        } else {
            &[]
        }
    }
}

impl Way {
    pub fn title(self) -> &'static str {
        match self {
            Way::Near => "",
            Way::Far => ", 20 ms away",
        }
    }
}

impl Manners {
    pub fn title(self) -> &'static str {
        match self {
            Manners::Graceful => "stops gracefully",
            Manners::Dies => "dies at once",
            Manners::ShutsDown => "shuts its sockets down",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Manners::Graceful => "graceful",
            Manners::Dies => "dies",
            Manners::ShutsDown => "shuts-down",
        }
    }
}

impl Clients {
    pub const ALL: [Clients; 5] =
        [Clients::New, Clients::Hesitant, Clients::Visits, Clients::Endless, Clients::Streams];

    pub fn title(self) -> &'static str {
        match self {
            Clients::New => "new connections",
            Clients::Hesitant => "slow ones",
            Clients::Visits => "kept alive for 20 requests",
            Clients::Endless => "kept alive without end",
            Clients::Streams => "streams of 5 s",
        }
    }

    /// How long a cell with them takes, beside the others.
    pub fn weight(self) -> u32 {
        match self {
            Clients::New => 0,
            Clients::Hesitant => 1,
            Clients::Streams => 2,
            Clients::Endless => 3,
            Clients::Visits => 4,
        }
    }

    /// Far away each of them has fewer requests in a second.
    fn load(self, way: Way) -> [(Kind, usize); 1] {
        let kind = match self {
            Clients::New => Kind::New,
            Clients::Hesitant => Kind::Hesitant { pause: Duration::from_millis(40) },
            Clients::Visits => Kind::visit(20),
            Clients::Endless => Kind::kept_alive(),
            Clients::Streams => Kind::Stream { length: STREAM },
        };
        let factor = match way {
            Way::Near => 1,
            Way::Far => 3,
        };
        [(kind, 8 * factor)]
    }

    /// How many are waited for before the first reload: none of those that it is to find under way.
    fn first_answers(self) -> u64 {
        match self {
            Clients::Streams => 0,
            Clients::New | Clients::Hesitant | Clients::Visits | Clients::Endless => ANSWERS,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far = match self.way {
            Way::Near => "",
            Way::Far => "delayed-",
        };
        let clients = match self.clients {
            Clients::New => "new",
            Clients::Hesitant => "slow",
            Clients::Visits => "kept",
            Clients::Endless => "endless",
            Clients::Streams => "streams",
        };
        write!(f, "{far}{}-{}-{clients}", self.balance, self.manners.argument())
    }
}

impl fmt::Display for Balance {
    /// As `--balance` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::Generation => "generation",
            Balance::Slots => "slots",
            Balance::Shared => "shared",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { report, took, log: _ } = self;
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{} ok, {} failed, {} reconnects ({} crossed), {} slow connects, {seconds:.1} s",
            report.ok_total(),
            report.failures_total(),
            report.reconnects,
            report.crossed,
            report.slow_connects,
        )?;
        if report.failures.is_empty() { Ok(()) } else { write!(f, "; {:?}", report.failures) }
    }
}
