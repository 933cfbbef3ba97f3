//! What devices put on the wire, held against what they may.

use crate::model::Model;
use anyhow::{Result, ensure};
use gbsync_core::digest::Digest;
use gbsync_core::limits::Limits;
use gbsync_core::wire::{Content, PushRequest};
use std::collections::BTreeMap;

/// What was sent so far.
#[derive(Default)]
pub(super) struct Wire {
    /// The bytes of each group's changes.
    bytes: BTreeMap<String, Digest>,
    /// Groups that were sent since the last look, with one that they depend on and that did not travel before them.
    children: Vec<(String, String)>,
}

impl Wire {
    /// P3: takes note of a request; a group's bytes are the same in each.
    pub(super) fn note(&mut self, path: &str, body: &[u8]) -> Result<()> {
        let request = PushRequest::parse(body, &Limits::default());
        let Ok(request) = request.as_ref().map_err(|_| ()) else { return Ok(()) };
        if !path.ends_with("/push") {
            return Ok(());
        }
        let mut before: Vec<&str> = Vec::new();
        for arrival in &request.groups {
            let id = arrival.id.as_str();
            if matches!(arrival.content, Content::Whole(_)) {
                let known = self.bytes.entry(id.to_owned()).or_insert(arrival.digest);
                ensure!(*known == arrival.digest, "P3: {id} was sent again with other bytes");
            }
            for parent in arrival.content.header().iter().flat_map(|header| &header.depends_on) {
                if !before.contains(&parent.as_str()) {
                    self.children.push((id.to_owned(), parent.as_str().to_owned()));
                }
            }
            before.push(id);
        }
        Ok(())
    }

    /// P5: what travelled without a group that it depends on travelled after that one was accepted.
    pub(super) fn check(&mut self, model: &Model) -> Result<()> {
        for (child, parent) in self.children.drain(..) {
            ensure!(model.stood(&parent), "P5: {child} was sent before {parent}, which it depends on");
        }
        Ok(())
    }
}
