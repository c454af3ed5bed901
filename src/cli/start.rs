//! `shepherd start`: starts a service that was stopped.

use super::args::Start;
use super::failure::Failure;
use super::one_by_one::one_by_one;
use super::render::outcome;

pub(super) fn main(args: &Start) -> Result<(), Failure> {
    let told = |done: &_| outcome::done(done, "started");
    one_by_one(&args.target, &args.services, "start", "the start", told)
}
