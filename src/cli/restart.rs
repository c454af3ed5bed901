//! `shepherd restart`: stops a service and starts it anew. Its sockets stay open meanwhile.

use super::args::Restart;
use super::failure::Failure;
use super::one_by_one::{Again, one_by_one};
use super::render::outcome;

pub(super) fn main(args: &Restart) -> Result<(), Failure> {
    let told = |done: &_, asked: &_| outcome::done(done, "restarted", asked);
    one_by_one(&args.target, &args.services, "restart", "the restart", Again::Skip, told)
}
