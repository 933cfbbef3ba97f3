//! The planner in memory, beside the way it replaces: for each pending item, scan all pending items for those of its group.

use super::Sizes;
use super::report::{Bar, Figure, median};
use gbsync_core::limits::Limits;
use gbsync_core::plan::{Candidate, plan};
use std::hint::black_box;
use std::time::Instant;

/// Changes of one group.
const GROUP: u64 = 5;

/// Measures planning.
pub(super) fn measure(sizes: &Sizes) -> Vec<Figure> {
    let (large, small) = (sizes.plan_changes, sizes.plan_changes / 10);
    let (scan_large, scan_small) = (sizes.scan_changes, sizes.scan_changes / 3);
    let mut seconds = [const { Vec::new() }; 4];
    for _ in 0..sizes.rounds {
        seconds[0].push(plan_seconds(large));
        // As much work as the large one, so that both are long enough to be measured.
        seconds[1].push((0..10).map(|_| plan_seconds(small)).sum::<f64>() / 10.0);
        seconds[2].push(scan_seconds(scan_large));
        seconds[3].push(scan_seconds(scan_small));
    }
    let [plan_large, plan_small, by_scan_large, by_scan_small] = seconds.map(|mut seconds| median(&mut seconds));
    vec![
        Figure::new("planner", "changes/s")
            .ours(large as f64 / plan_large)
            .raw(scan_large as f64 / by_scan_large)
            .bar(Bar::AtLeast(5e6))
            .note(format!("ours with {large} pending changes; beside it the scan for each group, with {scan_large}")),
        Figure::new("planner-growth", "times")
            .ours(plan_large / plan_small)
            .raw(by_scan_large / by_scan_small)
            .bar(Bar::AtMost(12.0))
            .note(format!("time of {large} over that of {small}; beside it the scan, {scan_large} over {scan_small}")),
    ]
}

fn plan_seconds(changes: u64) -> f64 {
    let candidate = |group| Candidate {
        group,
        records: GROUP,
        bytes: 1_300,
        actor: 0u32,
        is_ready: true,
        // A tenth of the groups edit what an earlier one made.
        undecided: if group % 10 == 9 { vec![group - 3] } else { Vec::new() },
    };
    // One at a time, as a device reads them: it never holds its outbox in memory.
    let started = Instant::now();
    let batches = plan((0..changes / GROUP).map(candidate), &Limits::default());
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>() as u64, changes / GROUP, "every group is planned");
    seconds
}

/// A pending item of a queue of items.
struct Item {
    group: String,
}

/// Collects, for each item that no batch has yet, all pending items of its group.
fn scan_seconds(changes: u64) -> f64 {
    let item = |no: u64| Item { group: format!("receipt-create:receipt-{:07}:01977f2e-5b1c-7cc3-8a2f", no / GROUP) };
    let pending: Vec<Item> = (0..changes).map(item).collect();
    let started = Instant::now();
    let mut is_taken = vec![false; pending.len()];
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    for place in 0..pending.len() {
        if is_taken[place] {
            continue;
        }
        let group: Vec<usize> = (0..pending.len()).filter(|other| pending[*other].group == pending[place].group).collect();
        group.iter().for_each(|member| is_taken[*member] = true);
        batch.extend(group);
        if batch.len() as u64 >= Limits::default().batch_records {
            batches.push(std::mem::take(&mut batch));
        }
    }
    black_box((batches, batch));
    started.elapsed().as_secs_f64()
}
