//! What a server counts and measures, for Prometheus.
//!
//! Invariant: what labels may say is bounded: of operation types and spaces so many are told apart, and the rest is `other`; so
//! no device can make a server remember without end.

use crate::commit::Tally;
use crate::live::Live;
use gbsync_core::id::{GroupType, Seq, SpaceId};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::GroupResult;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many types of operations are told apart: each has histograms.
const MOST_OPERATIONS: usize = 200;
/// How many spaces are: each has one number, its head.
const MOST_SPACES: usize = 10_000;
/// What stands for the rest, and for a group without a type.
const OTHER: &str = "other";
const NO_TYPE: &str = "no-group";

/// A histogram from half a millisecond to a minute, a family of them by label.
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 17))
}

fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 14))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    operation: String,
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOperation {
    operation: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySpace {
    space: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

/// Names that were seen, up to a bound.
struct Names {
    most: usize,
    seen: Mutex<BTreeSet<String>>,
}

impl Names {
    fn up_to(most: usize) -> Self {
        Self { most, seen: Mutex::default() }
    }

    fn known(&self, name: &str) -> String {
        let mut names = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) || names.len() < self.most {
            names.insert(name.to_owned());
            return name.to_owned();
        }
        OTHER.to_owned()
    }
}

/// Every figure of one server.
pub(crate) struct Metrics {
    registry: Registry,
    operations: Names,
    spaces: Names,
    groups: Family<ByOutcome, Counter>,
    push_seconds: Durations<ByOperation>,
    commit_seconds: Histogram,
    transaction_works: Histogram,
    heads: Family<BySpace, Gauge>,
    requests: Family<ByRoute, Counter>,
    limited: Family<ByLimit, Counter>,
    listeners: Gauge,
    queued: Gauge,
    transactions: Gauge,
    failed_transactions: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("gbsync"),
            operations: Names::up_to(MOST_OPERATIONS),
            spaces: Names::up_to(MOST_SPACES),
            groups: Family::default(),
            push_seconds: Family::new_with_constructor(durations),
            commit_seconds: durations(),
            transaction_works: sizes(),
            heads: Family::default(),
            requests: Family::default(),
            limited: Family::default(),
            listeners: Gauge::default(),
            queued: Gauge::default(),
            transactions: Gauge::default(),
            failed_transactions: Gauge::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("groups", "Groups by operation, outcome and code", self.groups.clone());
        let help = "From the queue to the answer of a push, for each of its groups";
        registry.register_with_unit("push", help, Unit::Seconds, self.push_seconds.clone());
        let help = "From the begin to the end of a transaction of the writer";
        registry.register_with_unit("transaction", help, Unit::Seconds, self.commit_seconds.clone());
        registry.register("transaction_works", "Requests that share a transaction", self.transaction_works.clone());
        registry.register("head", "The last seq of a space's log", self.heads.clone());
        registry.register("requests", "Requests by route, method and status", self.requests.clone());
        registry.register("limited", "Requests refused by a rate limit or a quota", self.limited.clone());
        registry.register("listeners", "Who listens to a live stream", self.listeners.clone());
        registry.register("queue_depth", "Requests that wait for the writer", self.queued.clone());
        registry.register("transactions", "Transactions since the start", self.transactions.clone());
        registry.register("failed_transactions", "Those that failed and left nothing", self.failed_transactions.clone());
        self
    }

    /// A push was answered.
    pub(crate) fn pushed(&self, types: &[Option<GroupType>], results: &[GroupResult], took: Duration) {
        for (group_type, result) in types.iter().zip(results) {
            let operation = self.operations.known(group_type.as_ref().map_or(NO_TYPE, GroupType::as_str));
            let (outcome, code) = match &result.verdict {
                Verdict::Accepted { is_duplicate: false, .. } => ("accepted", ""),
                Verdict::Rejected { is_duplicate: false, rejection } => ("rejected", rejection.code.as_str()),
                Verdict::Accepted { .. } | Verdict::Rejected { .. } => ("duplicate", ""),
                Verdict::Blocked { .. } => ("blocked", ""),
                _ => ("incomplete", ""),
            };
            self.push_seconds.get_or_create(&ByOperation { operation: operation.clone() }).observe(took.as_secs_f64());
            self.groups.get_or_create(&ByOutcome { operation, outcome, code }).inc();
        }
    }

    /// A transaction of so many works was committed.
    pub(crate) fn committed(&self, works: usize, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.transaction_works.observe(works as f64);
    }

    /// A log went on.
    pub(crate) fn advanced(&self, space: &SpaceId, head: Seq) {
        let space = self.spaces.known(space.as_str());
        if space != OTHER {
            self.heads.get_or_create(&BySpace { space }).set(i64::try_from(head.0).unwrap_or(i64::MAX));
        }
    }

    /// A request was answered on a route of the service.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16) {
        let labels = ByRoute { route: route.to_owned(), method: method.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
    }

    /// A request was refused by a bound, which is one of a few words.
    pub(crate) fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&ByLimit { limit }).inc();
    }

    /// Everything, in the text format of OpenMetrics.
    pub(crate) fn text(&self, tally: &Tally, live: &Live) -> String {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.listeners.set(gauge(live.listeners() as u64));
        self.queued.set(gauge(tally.queued.load(Ordering::Relaxed)));
        self.transactions.set(gauge(tally.transactions.load(Ordering::Relaxed)));
        self.failed_transactions.set(gauge(tally.failed_transactions.load(Ordering::Relaxed)));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_up_to_a_bound() {
        let names = Names::up_to(200);
        let known = (0..10_000).filter(|n| names.known(&format!("type-{n}")) != OTHER).count();
        assert_eq!((known, names.known("type-7").as_str()), (200, "type-7"));
    }

    #[test]
    fn two_thousand_spaces_have_a_head_each() {
        let metrics = Metrics::new();
        for n in 0..2_000 {
            metrics.advanced(&SpaceId::new(format!("shop-{n}")).expect("a name"), Seq(n + 1));
        }
        let mut text = String::new();
        encode(&mut text, &metrics.registry).expect("writing to a string does not fail");
        assert_eq!(text.lines().filter(|line| line.starts_with("gbsync_head{")).count(), 2_000);
        assert!(text.contains("gbsync_head{space=\"shop-1999\"} 2000"), "the last one");
    }
}
