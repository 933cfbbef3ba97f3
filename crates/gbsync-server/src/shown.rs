//! How much of the records that refusals are about one answer shows.
//!
//! A few bytes of changes may name many bytes of records, and a request may hold thousands of groups: without a bound a
//! small request would fill the server's memory with one answer. A refusal beyond it names its records without showing them.

use gbsync_core::verdict::Rejection;

/// Bytes of records that are shown together: far more than an honest batch touches.
const SHOWN_BYTES: usize = 16 * 1024 * 1024;

/// What may still be shown.
pub(crate) struct Shown {
    left: usize,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self { left: SHOWN_BYTES }
    }

    /// Takes the records out of a refusal for which there is no room.
    pub(crate) fn fit(&mut self, rejection: &mut Rejection) {
        let payloads = rejection.changes.iter().filter_map(|change| change.current.as_ref()?.payload.as_ref());
        let bytes: usize = payloads.map(|payload| payload.len()).sum();
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => rejection.changes.iter_mut().for_each(|change| change.current = None),
        }
    }
}
