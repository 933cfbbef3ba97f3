//! What writers were told is saved.

use std::collections::BTreeSet;
use std::sync::Mutex;

/// The roots of one device's operations that were acknowledged to their writer. A root stands for one operation.
#[derive(Default)]
pub struct Ledger {
    acknowledged: Mutex<BTreeSet<String>>,
}

impl Ledger {
    pub fn acknowledge(&self, root: &str) {
        self.acknowledged.lock().unwrap().insert(root.to_owned());
    }

    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// The root in the id of a group.
pub fn root_of(group_id: &str) -> Option<&str> {
    group_id.split(':').nth(1)
}
