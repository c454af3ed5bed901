//! What goes wrong, and what operators ask for, while a generation proves itself or the one before
//! is to come back.

use std::time::Duration;

use shepherd::core::event::Exit;
use shepherd::core::ids::{GenerationId, WorkerId};
use shepherd::core::notice::ProvingNotice;
use shepherd::core::policy::{Canary, Policy};
use shepherd::core::request::{Behind, Request, Scope};

use crate::fate::{Fate, ms};
use crate::ledger::Standing;
use crate::requests::{ONE_FEWER, ONE_MORE, RELOAD};
use crate::script::Script;

use super::{Happening, World};

/// Decides which services try what is new. Without a byte none does.
pub(super) fn decide(net: &mut Script, policies: &mut [Policy]) {
    for policy in policies {
        if net.one_in(3) {
            let percent = net.pick(&[5, 50, 99, 1, 34]);
            let time = ms(net.pick(&[300, 20, 1500, 30_000]));
            policy.canary = Some(Canary { percent, time });
        }
        let times: [Duration; 6] = [ms(0), ms(400), ms(0), ms(50), ms(5000), ms(60_000)];
        policy.probation = net.pick(&times);
    }
}

impl World<'_> {
    /// A trial has begun: one, or all, of those that prove themselves end, or an operator has another
    /// wish.
    pub(super) fn put_to_the_test(&mut self, name: &str, what: &ProvingNotice) {
        let generation = match what {
            ProvingNotice::Canary { generation, .. }
            | ProvingNotice::Probation { generation, .. } => *generation,
            ProvingNotice::Proved { .. }
            | ProvingNotice::Failed { .. }
            | ProvingNotice::ByPath { .. } => return,
        };
        if self.script.is_over() {
            return;
        }
        let after = ms(self.net.pick(&[0, 1, 10, 200, 900]));
        let named = || Scope::Named(vec![name.to_owned()]);
        let alone = || vec![name.to_owned()];
        match self.net.below(14) {
            0..4 => {}
            4 | 5 => self.end_some(name, generation, after, 1),
            6 => self.end_some(name, generation, after, usize::MAX),
            7 => self.plan(after, Happening::Asked(Request::RollBack(named()))),
            8 => self.plan(after, Happening::Asked(ONE_MORE)),
            9 => self.plan(after, Happening::Asked(ONE_FEWER)),
            10 => self.plan(after, Happening::Asked(Request::Restart(named()))),
            11 => {
                self.plan(after, Happening::Asked(Request::StopServices(alone())));
                let back = after + ms(self.net.pick(&[300, 0, 20]));
                self.plan(back, Happening::Asked(Request::StartServices(alone())));
            }
            12 => self.plan(after, Happening::Asked(RELOAD)),
            _ => {
                let behind = Behind::Refuse;
                self.plan(after, Happening::Asked(Request::Reload { scope: named(), behind }));
            }
        }
    }

    fn end_some(&mut self, name: &str, generation: GenerationId, after: Duration, count: usize) {
        let ledger = &self.ledger;
        let of = |(_, record): &(&WorkerId, &crate::ledger::Record)| {
            record.stage == Standing::Ready
                && record.generation == generation
                && ledger.books[&record.service].policy.name == name
        };
        let some = ledger.workers.iter().filter(of).map(|(&id, _)| id);
        let some: Vec<WorkerId> = some.take(count).collect();
        for worker in some {
            self.plan(after, Happening::Exits(worker, Exit::Code(3), 0));
        }
    }

    /// An operator who asks for a reload may want back what was there before.
    pub(super) fn change_their_mind(&mut self, after: Duration) {
        if self.net.one_in(6) {
            let after = after + ms(self.net.pick(&[300, 0, 5, 40, 2000]));
            let scope = match self.net.below(5) {
                0 => Scope::All,
                1 => Scope::Named(vec!["s2".to_owned()]),
                _ => Scope::Named(vec!["s1".to_owned()]),
            };
            self.plan(after, Happening::Asked(Request::RollBack(scope)));
        }
    }

    /// One of a generation that is the same as another fails too.
    pub(super) fn fail_again(&mut self, fate: &mut Fate) {
        if !self.script.is_over() && self.net.one_in(8) {
            let after = ms(self.net.pick(&[0, 5, 11, 40]));
            fate.exit = Some((after, 3));
        }
    }
}
