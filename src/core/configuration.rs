//! A configuration that was read again, as far as the core has to know it: what each service is to be
//! from here on, and which are no more. The sockets that it names are open when the core hears of it.

use super::ids::ServiceId;
use super::policy::Policy;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// What these services are to be. Those that are not known are added, and their first definitions
    /// are read already, under number 1.
    pub services: Vec<Policy>,
    /// These are no more.
    pub removed: Vec<ServiceId>,
}
