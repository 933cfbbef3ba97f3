//! How far large groups are, as a bar on a terminal.

use crate::output::Output;
use gbsync_client::{OnTransfer, Transfer};
use indicatif::ProgressBar;
use std::sync::{Arc, Mutex, PoisonError};

/// Shows a bar while a large group travels, where somebody watches.
pub fn shown_on(output: &Output) -> Option<OnTransfer> {
    // Without a bar there is nothing to tell: the report at the end says what became of the group.
    output.parts_bar(1, "")?.finish_and_clear();
    let (output, shown) = (output.clone(), Mutex::new(None::<(Transfer, ProgressBar)>));
    Some(Arc::new(move |transfer: &Transfer| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(before, _): &(Transfer, ProgressBar)| {
            (&before.group_id, before.is_upload, before.parts) == (&transfer.group_id, transfer.is_upload, transfer.parts)
        };
        if !shown.as_ref().is_some_and(is_same) {
            let what = if transfer.is_upload { "sending" } else { "fetching" };
            let bar = output.parts_bar(transfer.parts, &format!("{what} {}", transfer.group_id));
            *shown = bar.map(|bar| (transfer.clone(), bar));
        }
        let Some((_, bar)) = shown.as_ref() else { return };
        bar.set_position(transfer.done);
        if transfer.done >= transfer.parts {
            bar.finish_and_clear();
        }
    }))
}
