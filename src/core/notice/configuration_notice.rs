//! What users hear of a configuration that was read, and of services that come, wait and go with it.

use std::fmt;

use super::{Count, Loudness};
use crate::core::ids::GenerationId;

/// What comes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigurationNotice {
    /// It was read again and cannot be used: everything goes on as it was.
    Refused {
        /// What is wrong and what to do about it.
        reason: String,
    },
    /// A service is new in it.
    Added {
        /// Its name.
        service: String,
    },
    /// A service does not start yet.
    Waiting {
        /// Its name.
        service: String,
        /// The names of those that have to be ready first.
        services: Vec<String>,
    },
    /// A service that has not begun is to be what another definition says.
    Redefined {
        /// Its name.
        service: String,
        /// The number of that definition.
        generation: GenerationId,
    },
    /// A service is in it no more, and nobody needs it: it is asked to stop.
    Leaves {
        /// Its name.
        service: String,
        /// How many workers it has.
        workers: u32,
    },
    /// Nothing is left of a service that is in it no more.
    Removed {
        /// Its name.
        service: String,
    },
}

impl ConfigurationNotice {
    /// The name of the service that it is about.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            ConfigurationNotice::Refused { .. } => None,
            ConfigurationNotice::Added { service }
            | ConfigurationNotice::Waiting { service, .. }
            | ConfigurationNotice::Redefined { service, .. }
            | ConfigurationNotice::Leaves { service, .. }
            | ConfigurationNotice::Removed { service } => Some(service),
        }
    }

    pub(super) fn loudness(&self) -> Loudness {
        match self {
            ConfigurationNotice::Refused { .. } => Loudness::Error,
            ConfigurationNotice::Added { .. }
            | ConfigurationNotice::Waiting { .. }
            | ConfigurationNotice::Redefined { .. }
            | ConfigurationNotice::Leaves { .. }
            | ConfigurationNotice::Removed { .. } => Loudness::Info,
        }
    }
}

impl fmt::Display for ConfigurationNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationNotice::Refused { reason } => {
                // A file's mistakes are many lines, of which the last one counts them.
                let reason = reason.lines().last().unwrap_or_default();
                write!(f, "cannot reload: {reason}; nothing has changed")
            }
            ConfigurationNotice::Added { service } => write!(f, "{service}: added"),
            ConfigurationNotice::Waiting { service, services } => {
                write!(f, "{service}: waiting for {} to be ready", services.join(", "))
            }
            ConfigurationNotice::Redefined { service, generation } => {
                write!(f, "{service}: it will start with generation {generation}")
            }
            ConfigurationNotice::Leaves { service, workers: 0 } => write!(f, "{service}: leaving"),
            ConfigurationNotice::Leaves { service, workers } => {
                let workers = Count(*workers, "worker", "workers");
                write!(f, "{service}: leaving, {workers} draining")
            }
            ConfigurationNotice::Removed { service } => write!(f, "{service}: removed"),
        }
    }
}
