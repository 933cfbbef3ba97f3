//! How much one may ask, how much a space may hold, and how much a device may push in a day.
//!
//! Invariant: nothing here is ever a verdict. Who asks too much, or wants more into a space than it may hold, is refused as a
//! request before anything is decided, keeps everything, and comes back.
//!
//! Rejected alternative: counting in the store, for all processes at once. It would put a row that everybody writes before every
//! request; each process allows what it is told to, and docs/operations.md says so.

mod bucket;
mod quota;

use crate::auth::Admission;
use crate::config::Environment;
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::store::Usage;
use bucket::Buckets;
use gbsync_core::id::{DeviceId, SpaceId};
use quota::Quotas;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use quota::Quotas as SpaceQuotas;

/// How often somebody may ask. Of each rate 0 sets no bound.
///
/// ```
/// assert_eq!(gbsync_server::RateConfig::default().device_requests, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateConfig {
    /// Requests a second from one address, whoever asks.
    pub address_requests: u64,
    /// Requests that an address may make at once.
    pub address_burst: u64,
    /// Requests a second of one device.
    pub device_requests: u64,
    /// Requests that a device may make at once.
    pub device_burst: u64,
    /// Requests a second in one space.
    pub space_requests: u64,
    /// Requests that may be made in a space at once.
    pub space_burst: u64,
    /// Bytes a second that one device pushes, as they come.
    pub device_push_bytes: u64,
    /// Bytes a second that are pushed to one space, as they come.
    pub space_push_bytes: u64,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            address_requests: 0,
            address_burst: 200,
            device_requests: 0,
            device_burst: 60,
            space_requests: 0,
            space_burst: 600,
            device_push_bytes: 0,
            space_push_bytes: 0,
        }
    }
}

/// How much a space may hold, and how much a device may push in a day. Of each, 0 sets no bound.
///
/// ```
/// assert_eq!(gbsync_server::QuotaConfig::default().device_bytes_a_day, 0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QuotaConfig {
    /// Live records.
    pub space_records: u64,
    /// Bytes of their payloads.
    pub space_bytes: u64,
    /// Changes that one device may push in a day, whatever becomes of them.
    pub device_records_a_day: u64,
    /// Bytes that one device may push in a day, parts of large groups among them, not compressed.
    pub device_bytes_a_day: u64,
}

/// The bounds of one process.
pub(crate) struct Limiter {
    address: Buckets,
    device: Buckets,
    space: Buckets,
    device_bytes: Buckets,
    space_bytes: Buckets,
    device_records_a_day: Buckets,
    device_bytes_a_day: Buckets,
    pub(crate) quotas: Quotas,
    metrics: Arc<Metrics>,
    environment: Environment,
}

impl Limiter {
    /// `request_bytes`: the most bytes of one request, of which some may always come at once.
    pub(crate) fn new(
        rates: RateConfig,
        quotas: QuotaConfig,
        request_bytes: u64,
        metrics: Arc<Metrics>,
        environment: Environment,
    ) -> Self {
        let bytes = |rate: u64| Buckets::new(rate, rate.saturating_mul(4).max(request_bytes.saturating_mul(4)));
        Self {
            address: Buckets::new(rates.address_requests, rates.address_burst),
            device: Buckets::new(rates.device_requests, rates.device_burst),
            space: Buckets::new(rates.space_requests, rates.space_burst),
            device_bytes: bytes(rates.device_push_bytes),
            space_bytes: bytes(rates.space_push_bytes),
            device_records_a_day: Buckets::daily(quotas.device_records_a_day),
            device_bytes_a_day: Buckets::daily(quotas.device_bytes_a_day),
            quotas: Quotas::new(quotas),
            metrics,
            environment,
        }
    }

    /// A request from an address, before anything else is known of it.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), Refusal> {
        self.take(&self.address, "address_requests", 1, || network(address))
    }

    /// A request that was let in.
    pub(crate) fn request(&self, admission: &Admission) -> Result<(), Refusal> {
        if let Some(device) = &admission.device {
            self.device(&admission.space, device)?;
        }
        self.take(&self.space, "space_requests", 1, || admission.space.to_string())
    }

    /// A request of a device that only the request itself names.
    pub(crate) fn of_unbound(&self, admission: &Admission, device: &DeviceId) -> Result<(), Refusal> {
        match admission.device {
            Some(_) => Ok(()),
            None => self.device(&admission.space, device),
        }
    }

    fn device(&self, space: &SpaceId, device: &DeviceId) -> Result<(), Refusal> {
        self.take(&self.device, "device_requests", 1, || of_device(space, device))
    }

    /// Bytes that a device pushes.
    pub(crate) fn bytes(&self, admission: &Admission, device: &DeviceId, bytes: u64) -> Result<(), Refusal> {
        let space = &admission.space;
        self.take(&self.device_bytes, "device_push_bytes", bytes, || of_device(space, device))?;
        self.take(&self.space_bytes, "space_push_bytes", bytes, || space.to_string())
    }

    /// What a device pushes, of what it may push in a day: all of it, or nothing.
    pub(crate) fn day(&self, space: &SpaceId, device: &DeviceId, added: Usage) -> Result<(), Refusal> {
        let now_ms = self.environment.now_ms();
        let take = |buckets: &Buckets, amount: u64| match buckets.are_off() {
            true => Ok(()),
            false => buckets.take(of_device(space, device), amount, now_ms),
        };
        let (records, bytes) = (&self.device_records_a_day, &self.device_bytes_a_day);
        take(records, added.records).map_err(|wait| self.used_up("device_records_a_day", device, wait))?;
        take(bytes, added.bytes).map_err(|wait| {
            records.give_back(&of_device(space, device), added.records);
            self.used_up("device_bytes_a_day", device, wait)
        })
    }

    fn used_up(&self, quota: &'static str, device: &DeviceId, wait: Duration) -> Refusal {
        self.metrics.limited("device_quota");
        let detail = format!(
            "{device} has pushed what it may in a day; nothing of this request took effect. It comes back after Retry-After, or \
             whoever runs the server may raise quota.{quota}"
        );
        Refusal::used_up(quota, detail, wait)
    }

    fn take(&self, buckets: &Buckets, limit: &'static str, cost: u64, key: impl FnOnce() -> String) -> Result<(), Refusal> {
        if buckets.are_off() {
            return Ok(());
        }
        buckets.take(key(), cost, self.environment.now_ms()).map_err(|wait| {
            self.metrics.limited(limit);
            let detail = "this is asked for too often; nothing of this request took effect, come back after Retry-After";
            Refusal::limited(limit, detail, wait)
        })
    }

    /// A push is refused because its space is full.
    pub(crate) fn full(&self, detail: String) -> Refusal {
        self.metrics.limited("quota");
        Refusal::full(detail)
    }
}

fn of_device(space: &SpaceId, device: &DeviceId) -> String {
    format!("{space}\n{device}")
}

/// Whoever has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => address.to_string(),
        IpAddr::V6(v6) => v6.segments()[..4].iter().map(|part| format!("{part:x}:")).collect(),
    }
}
