//! `GET /v1/spaces/{space}`: what a device learns before it pushes or pulls.
//!
//! A device may name its epoch and the one before; the server keeps what it is told, for whoever has to find out later where
//! a number went.
//!
//! It may also say where it stands. Where the log is the one that it names and does not stand there, the store was rolled back
//! behind its back: a new log begins, with this one as its ancestor. A log that nothing is known of becomes an ancestor too.

use super::parameters::Parameters;
use super::{App, json};
use crate::auth::Admission;
use crate::commit::{Forking, ForkingOutcome};
use crate::error::Refusal;
use crate::store::{EpochKey, Page, PageRequest, Store, ToldEpoch};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use gbsync_core::digest::Digest;
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, LogId, Seq, SpaceId};
use gbsync_core::limits::KNOWN_PLACES;
use gbsync_core::wire::{Handshake, LogPlace};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn handshake(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    uri: Uri,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let device = parameters.id("device", |text| DeviceId::new(text))?;
    if let Some(device) = &device {
        admission.check_device(device)?;
    }
    let device = device.or(admission.device);
    let told = told_epoch(&parameters, &admission.space, device.as_ref())?;
    let (space, of_device, of_epoch) = (admission.space.clone(), device, told.clone());
    let look = move |store: &dyn Store| store.space(&space, of_device.as_ref(), of_epoch.as_ref());
    let mut view = app.read(look.clone()).await?.ok_or_else(Refusal::no_space)?;
    let at = place(&parameters)?;
    let (mut agrees, mut agrees_up_to) = (None, None);
    if let Some(at) = at {
        agrees = stands(&app, &admission.space, at.seq, at.chain).await?;
        // Who only asks gets no new log; who can say up to where it knows the log does.
        if let Some(known) = known(&parameters)?.filter(|_| agrees == Some(false)) {
            let log = LogId::new(app.environment.uuid()).expect("a UUID is an id");
            let forking = Forking { space: admission.space.clone(), at, known, log };
            match app.committer.fork(forking).await? {
                ForkingOutcome::TooSoon => return Err(Refusal::log_too_soon()),
                ForkingOutcome::Done(up_to) => agrees_up_to = Some(up_to),
            }
            view = app.read(look).await?.ok_or_else(Refusal::no_space)?;
        }
    }
    if let Some(told) = told.filter(|_| !view.knows_told) {
        app.committer.tell(told).await?;
    }
    let rules = app.rules_in_force().await?;
    let scope_set = admission.scopes.name(rules.as_ref().map(|rules| &rules.schema));
    let answer = Handshake {
        space: admission.space,
        log: view.state.log,
        ancestors: view.state.ancestors.into_iter().map(|kept| kept.ancestor).collect(),
        schema_version: rules.map_or(0, |rules| rules.schema.version),
        head: view.state.head,
        chain: view.state.chain,
        agrees,
        agrees_up_to,
        horizon: view.state.horizon,
        server_time: app.environment.now(),
        device: view.device,
        token: Some(admission.bearer),
        scopes: admission.scopes,
        scope_set: Some(scope_set.into()),
        limits: app.limits,
    };
    Ok(json(answer.to_json()))
}

/// Where the device says that it stands.
fn place(parameters: &Parameters) -> Result<Option<LogPlace>, Refusal> {
    let log = parameters.id("log", |text| LogId::new(text))?;
    let chain = parameters.read("chain", "64 hexadecimal digits", Digest::from_hex)?;
    let seq = parameters.count("after")?.map(Seq);
    Ok(log.zip(seq).zip(chain).map(|((log, seq), chain)| LogPlace { log, seq, chain }))
}

/// Earlier places where the device says that it stood, each `SEQ.CHAIN`, with commas between.
fn known(parameters: &Parameters) -> Result<Option<BTreeMap<Seq, Digest>>, Refusal> {
    let read = |text: &str| {
        let place = |text: &str| {
            let (seq, chain) = text.split_once('.')?;
            Some((Seq(seq.parse().ok().filter(|seq| *seq < 1 << 53)?), Digest::from_hex(chain)?))
        };
        let known: Option<BTreeMap<_, _>> = text.split(',').map(place).collect();
        known.filter(|known| known.len() <= KNOWN_PLACES)
    };
    parameters.read("known", "places of the log, like 57.SHA256, with commas between", read)
}

/// Whether the log has this chain there; `None` where it no longer reaches back so far.
async fn stands(app: &App, space: &SpaceId, after: Seq, chain: Digest) -> Result<Option<bool>, Refusal> {
    let (space, chain) = (space.clone(), Some(chain));
    let request = PageRequest { space, after, log: None, chain, max_records: 1, max_bytes: 1, sight: Arc::default() };
    Ok(match app.read(move |store| store.page(&request)).await? {
        Page::Entries { .. } => Some(true),
        Page::BeyondHead { .. } | Page::LogChanged => Some(false),
        Page::BehindHorizon { .. } | Page::NoSpace => None,
    })
}

fn told_epoch(parameters: &Parameters, space: &SpaceId, device: Option<&DeviceId>) -> Result<Option<ToldEpoch>, Refusal> {
    let epoch = parameters.id("epoch", |text| EpochId::new(text))?;
    let previous_epoch = parameters.id("previousEpoch", |text| EpochId::new(text))?;
    let previous_seq = parameters.count("previousDeviceSeq")?;
    let Some(epoch) = epoch else { return Ok(None) };
    let Some(device) = device.cloned() else {
        return Err(Refusal::parameter("epoch", "needs the parameter device beside it"));
    };
    let previous = previous_epoch.map(|epoch| (epoch, DeviceSeq(previous_seq.unwrap_or(0))));
    Ok(Some(ToldEpoch { space: space.clone(), key: EpochKey { device, epoch }, previous }))
}
