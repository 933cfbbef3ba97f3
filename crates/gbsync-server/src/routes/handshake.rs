//! `GET /v1/spaces/{space}`: what a device learns before it pushes or pulls.
//!
//! A device may name its epoch and the one before; the server keeps what it is told, for whoever has to find out later where
//! a number went.

use super::parameters::Parameters;
use super::{App, json};
use crate::auth::Admission;
use crate::error::Refusal;
use crate::store::{EpochKey, ToldEpoch};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, SpaceId};
use gbsync_core::wire::Handshake;
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
    let view = app.read(move |store| store.space(&space, of_device.as_ref(), of_epoch.as_ref())).await?;
    let view = view.ok_or_else(Refusal::no_space)?;
    if let Some(told) = told.filter(|_| !view.knows_told) {
        app.committer.tell(told).await?;
    }
    let rules = app.rules_in_force().await?;
    let scope_set = admission.scopes.name(rules.as_ref().map(|rules| &rules.schema));
    let answer = Handshake {
        space: admission.space,
        log: view.state.log,
        ancestors: Vec::new(),
        schema_version: rules.map_or(0, |rules| rules.schema.version),
        head: view.state.head,
        chain: view.state.chain,
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
