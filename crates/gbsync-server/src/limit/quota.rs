//! What spaces may hold, and what devices may push into them.
//!
//! What a space holds is measured when it may be near its quota, not counted in every transaction: so a quota costs nothing while
//! it is far, and a space may pass it by what is pushed within a second. Measured again before anybody is refused.

use super::QuotaConfig;
use crate::error::Refusal;
use crate::routes::App;
use crate::store::Usage;
use gbsync_core::change::Edit;
use gbsync_core::id::{DeviceId, SpaceId};
use gbsync_core::wire::{Content, PushRequest};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How old a measurement may be while the space is far from its quota, and by which it is refused, in milliseconds.
const FAR_MS: u64 = 60_000;
const NEAR_MS: u64 = 1_000;

/// The last measurement of a space, and what was pushed since: at most so much was added.
#[derive(Debug, Clone, Copy)]
struct Measured {
    usage: Usage,
    pushed: Usage,
    at_ms: u64,
}

/// The quotas of all spaces.
pub(crate) struct Quotas {
    config: QuotaConfig,
    /// Only of spaces that are there: whoever pushes was let in.
    measured: Mutex<BTreeMap<SpaceId, Measured>>,
}

impl Quotas {
    pub(super) fn new(config: QuotaConfig) -> Self {
        Self { config, measured: Mutex::default() }
    }

    fn are_off(&self) -> bool {
        (self.config.space_records, self.config.space_bytes) == (0, 0)
    }

    fn is_full(&self, usage: Usage) -> bool {
        let QuotaConfig { space_records, space_bytes, .. } = self.config;
        let is_over = |most: u64, has: u64| most > 0 && has >= most;
        is_over(space_records, usage.records) || is_over(space_bytes, usage.bytes)
    }

    fn known(&self, space: &SpaceId) -> Option<Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).get(space).copied()
    }

    /// Notes a measurement, if there is one, and what is pushed; or says what a space holds that is full.
    fn add(&self, space: &SpaceId, anew: Option<Measured>, added: Usage) -> Result<(), Usage> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(anew) = anew {
            measured.insert(space.clone(), anew);
        }
        let Some(measured) = measured.get_mut(space) else { return Ok(()) };
        if self.is_full(measured.usage) {
            return Err(measured.usage);
        }
        measured.pushed = measured.pushed.and(added);
        Ok(())
    }

    /// Refuses a push into a space that is full, unless it only deletes, and one of a device that may push no more today.
    pub(crate) async fn check(app: &App, space: &SpaceId, request: &PushRequest, bytes: u64) -> Result<(), Refusal> {
        let added = Usage { records: records(request), bytes };
        if !only_deletes(request) {
            Self::check_space(app, space, added).await?;
        }
        app.limiter.day(space, &request.device, added)
    }

    /// The same for a part of a group; its changes count in the push that names it.
    pub(crate) async fn check_part(app: &App, space: &SpaceId, device: &DeviceId, bytes: u64) -> Result<(), Refusal> {
        let added = Usage { records: 0, bytes };
        Self::check_space(app, space, added).await?;
        app.limiter.day(space, device, added)
    }

    async fn check_space(app: &App, space: &SpaceId, added: Usage) -> Result<(), Refusal> {
        let quotas = &app.limiter.quotas;
        if quotas.are_off() {
            return Ok(());
        }
        let now_ms = app.environment.now_ms();
        let fits = |measured: &Measured| {
            let age = now_ms.abs_diff(measured.at_ms);
            age < NEAR_MS || age < FAR_MS && !quotas.is_full(measured.usage.and(measured.pushed))
        };
        let anew = match quotas.known(space).filter(fits) {
            Some(_) => None,
            None => {
                let wanted = space.clone();
                let usage = app.read(move |store| store.usage(&wanted)).await?.unwrap_or_default();
                Some(Measured { usage, pushed: Usage::default(), at_ms: now_ms })
            }
        };
        let Usage { records, bytes } = match quotas.add(space, anew, added) {
            Ok(()) => return Ok(()),
            Err(usage) => usage,
        };
        Err(app.limiter.full(format!(
            "{space} holds {records} records with {bytes} bytes, and may hold no more; nothing of this request took effect. \
             Whoever runs the server may raise quota.space_records or quota.space_bytes; deletes are taken meanwhile"
        )))
    }
}

fn records(request: &PushRequest) -> u64 {
    let of = |content: &Content| match content {
        Content::Whole(group) => group.changes().len() as u64,
        Content::InParts(parts) => parts.change_count,
        _ => 0,
    };
    request.groups.iter().map(|arrival| of(&arrival.content)).sum()
}

fn only_deletes(request: &PushRequest) -> bool {
    let is_delete = |content: &Content| match content {
        Content::Whole(group) => group.changes().iter().all(|change| matches!(change.edit, Edit::Delete)),
        _ => false,
    };
    request.groups.iter().all(|arrival| is_delete(&arrival.content))
}
