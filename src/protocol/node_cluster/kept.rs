//! What the servers of a service share, kept for those to come.

use std::collections::BTreeMap;

use super::key::Key;
use super::query::Data;

/// How many servers of one service have their data kept; a service has a few.
const KEPT_MAX: usize = 256;

/// The data of each server of one service, over restarts and generations: a client that comes back with
/// the ticket of a TLS session resumes it, whoever gave the ticket. Node loses them with the last worker.
#[derive(Debug, Clone, Default)]
pub struct KeptData {
    by_key: BTreeMap<Key, Data>,
}

impl KeptData {
    /// What a worker that has `offered` is to be answered with: what the first one had.
    pub fn settle(&mut self, key: &Key, offered: Option<&Data>) -> Option<Data> {
        if let Some(kept) = self.by_key.get(key) {
            return Some(kept.clone());
        }
        let offered = offered?;
        if self.by_key.len() < KEPT_MAX {
            self.by_key.insert(key.clone(), offered.clone());
        }
        Some(offered.clone())
    }

    /// The server is not offered any more.
    pub fn forget(&mut self, key: &Key) {
        self.by_key.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::node_cluster::query::{Asked, read};

    fn data(text: &str) -> Option<Data> {
        let query = format!(r#"{{"seq":0,"port":1,"addressType":4,"data":"{text}"}}"#);
        match read(&query) {
            Asked::Well { query, .. } => query.data,
            Asked::Badly { .. } | Asked::Unanswerable => panic!("{query} is a query"),
        }
    }

    #[test]
    fn the_first_worker_that_has_something_decides_for_all() {
        let mut kept = KeptData::default();
        let (key, other) = (Key::test("a"), Key::test("b"));
        assert_eq!(kept.settle(&key, None), None);
        assert_eq!(kept.settle(&key, data("one").as_ref()), data("one"));
        assert_eq!(kept.settle(&key, data("two").as_ref()), data("one"));
        assert_eq!(kept.settle(&key, None), data("one"));
        assert_eq!(kept.settle(&other, data("two").as_ref()), data("two"));
        kept.forget(&key);
        assert_eq!(kept.settle(&key, data("two").as_ref()), data("two"));
    }

    #[test]
    fn a_program_that_invents_servers_is_answered_and_not_kept() {
        let mut kept = KeptData::default();
        for number in 0..KEPT_MAX * 2 {
            let key = Key::test(&number.to_string());
            assert_eq!(kept.settle(&key, data("x").as_ref()), data("x"));
        }
        assert_eq!(kept.by_key.len(), KEPT_MAX);
    }
}
