//! Node's own cluster module, with a primary as its documentation shows it.

use std::{ffi::OsString, path::Path};

use super::{Contender, Program, Running, Says, builder, hang_up, wait_for_line};
use crate::harness::{Port, http_node};

/// The primary of `programs/cluster.js` around the example worker in Node.
pub struct NodeCluster;

impl Contender for NodeCluster {
    fn name(&self) -> &'static str {
        "node:cluster"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "node", from: "apt install nodejs" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let primary = manifest.join("integration/bench/programs/cluster.js");
        let mut arguments: Vec<OsString> = vec![primary.into(), workers.to_string().into()];
        arguments.extend(http_node().into_iter().skip(1));
        arguments.push(format!("127.0.0.1:{port}").into());
        let supervisor = builder().binary("node").start_other(arguments);
        Running { supervisor, behind: Vec::new() }
    }

    fn says_ready(&self, running: &Running, workers: usize) -> Says {
        wait_for_line(running, workers)
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(hang_up)
    }
}
