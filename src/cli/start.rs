//! `shepherd start`: starts a service that was stopped.

use super::args::Start;
use super::failure::Failure;
use super::one_by_one::{Again, one_by_one};
use super::render::outcome;

pub(super) fn main(args: &Start) -> Result<(), Failure> {
    let told = |done: &_, asked: &_| outcome::done(done, "started", asked);
    one_by_one(&args.target, &args.services, "start", "the start", Again::Skip, told)
}
