//! The core: it decides everything and does nothing.
//!
//! Events and the time go in, actions come out. There is no clock, process, descriptor, file,
//! environment, thread or log in here, so a test can run a year in a second and replay it.
//!
//! # The machine
//!
//! A **service** wants so many **workers**, one in each **slot**, all of one **generation**: that is
//! its *serving fleet*. What is differs from what should be whenever a worker ends, a deadline
//! passes or an operator asks for something. Each time, the service notes the fact and then
//! *settles*: it starts what is missing, stops what is not wanted, and takes a reload one step on.
//! Nothing else starts a worker, so there is one place to read when one starts that should not.
//!
//! A **worker** is `Starting` until there is evidence that it can serve, then `Ready`, then
//! `Draining` once it is asked to stop; `Orphaned` when only processes it left behind are alive and
//! `Killed` when its tree was sent KILL. A worker *ends* when it no longer serves (its slot is free
//! at once) and is *gone* when no process of it is left. A fleet holds only workers that start or
//! are ready: those that drain belong to nobody, may be of any generation and any number, and never
//! stand in the way of the next one.
//!
//! A **reload** has a fleet of its own beside the serving one. Until every worker of that is ready
//! nothing is taken from the serving fleet, which goes on restarting its workers by its own
//! definition. Commit swaps the fleets and stops the old one's workers; abort stops the new one's.
//!
//! A new generation may have to *prove itself*: as a *canary* it gets a part of new connections for
//! a time before the commit, and the end of a worker aborts the reload as ever; on *probation* it
//! serves, and the end of a worker brings back what served before. The definition before the one that
//! serves is kept for that and for an operator's *rollback*, each a reload to what was read already,
//! which has proved itself.
//!
//! A **socket** has *members*, the kernel sockets that workers are given: one for each generation, one
//! for each slot of it, or one that all generations share. The kernel is told which of them get new
//! connections; a worker that is steered away from is `Emptying` until it has finished what it has, and
//! only then gets its signal. Where each slot has an address, its member is bound before its first
//! worker starts and closed when its last one is gone, and its workers of all generations get the
//! same. A slot whose member cannot be bound has no worker, is in no fleet, and keeps nothing else from
//! going on.
//!
//! A **proxy** in front of a service may be told which slots have a ready worker. The last ready
//! worker of a slot that the proxy knows is `Withdrawing` when it is asked to stop: it serves on until
//! the proxy was told without its slot, or had its time for that, and only then gets its signal.
//!
//! A service that an operator stopped has no worker and no socket until it is *started*: its
//! definition is read and its sockets are bound again. A *restart* is a stop and a start with the
//! sockets kept. Both serve with nobody beside them, and what is asked for last wins.
//!
//! # Who decides when deciders disagree
//!
//! 1. A stop goes before everything: it ends a reload, empties the queue, and nothing starts after.
//!    With a *lame duck* it does the first two at once and the last once that is over: until then
//!    whoever sends work here can see that it ends, and what serves is restarted and repaired.
//! 2. Serving goes before reloading: a reload that loses a worker is over, whoever is to blame.
//! 3. What the operator asked for last about the number of workers holds for both fleets.
//! 4. A worker's own word (`STOPPING=1`) frees its slot; it gets the drain's time, then the ladder.
//!
//! # How to drive it
//!
//! 1. [`Supervisor::new`], then perform every action that [`Supervisor::poll_action`] gives, in
//!    order, until it gives none.
//! 2. Wait for something to happen, or for [`Supervisor::next_deadline`].
//! 3. Feed what happened to [`Supervisor::handle_event`], or call [`Supervisor::handle_timeout`].
//! 4. Perform the actions, and again from 2 until [`Action::Finish`].
//!
//! `now` must never go back. Actions name workers by id; an event for a worker that is gone is late
//! news and changes nothing.

#![warn(clippy::wildcard_enum_match_arm)]

mod supervisor;

pub mod event;

pub mod action;

pub mod policy;

pub mod configuration;

mod dependencies;

pub mod request;

pub mod refusal;

pub mod service;

pub mod fleet;

pub mod roster;

pub mod reload;

pub mod worker;

pub mod readiness;

pub mod restart;

pub mod sockets;

pub mod steering;

pub mod drain;

pub mod stalls;

pub mod slots;

pub mod publication;

pub mod repair;

pub mod suspicion;

pub mod dispatch;

pub mod notice;

pub mod status;

pub mod time;

pub mod ids;

pub use action::Action;
pub use event::Event;
pub use supervisor::Supervisor;
