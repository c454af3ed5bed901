//! What a program finds in its environment, by which Node knows that it has a channel.

/// The highest number that the channel's descriptor may have. Node marks what it inherits close-on-exec
/// from 3 on and ends at the first hole above 15; a channel that it misses is inherited by all that the
/// worker starts, and does not end with it.
pub const CHANNEL_FD_MAX: u32 = 15;

/// What the program is to its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `cluster.isWorker`, with `cluster.worker.id`: 1 to 2^31 - 1, as JavaScript cuts it there.
    ClusterWorker {
        /// The number, never used twice for one primary.
        unique_id: u32,
    },
    /// A child of `child_process.fork`: `process.send` is there, and cluster does not know of it.
    Forked,
}

/// The variables of a program whose channel is the descriptor `channel`, at most [`CHANNEL_FD_MAX`]:
/// one end of a socketpair of `AF_UNIX`, `SOCK_STREAM`. `instance` is what PM2 has programs find their
/// place among their likes by, from 0 on.
#[must_use]
pub fn environment(channel: u32, role: Role, instance: u32) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("NODE_CHANNEL_FD", channel.to_string()),
        ("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_owned()),
        ("NODE_APP_INSTANCE", instance.to_string()),
    ];
    match role {
        Role::ClusterWorker { unique_id } => {
            variables.push(("NODE_UNIQUE_ID", unique_id.to_string()));
        }
        Role::Forked => {}
    }
    variables
}
