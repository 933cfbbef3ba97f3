//! `GET /v1/spaces/{space}`: what a device learns before it pushes or pulls.

use super::PROTOCOL;
use super::bearer::Bearer;
use super::read::{Fields, Read, WireError, each, id_item, parse, push_count, push_text, wrong};
use crate::digest::Digest;
use crate::id::{DeviceSeq, EpochId, LogId, Scope, Seq, SpaceId};
use crate::json::{Node, Value, push_string};
use crate::limits::Limits;
use crate::scope::ScopeSet;
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// The answer to a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The space.
    pub space: SpaceId,
    /// Its current log.
    pub log: LogId,
    /// Earlier logs and up to which `seq` they agree with this one.
    pub ancestors: Vec<Ancestor>,
    /// The version of the server's schema; 0 without one.
    pub schema_version: u64,
    /// The last `seq` of the log.
    pub head: Seq,
    /// The chain at the head.
    pub chain: Digest,
    /// Whether the log holds, where the device stands, what the device says that it does; `None` where it said nothing.
    pub agrees: Option<bool>,
    /// The highest of the places that the device says it knows at which this log is the same; `None` where it said none.
    pub agrees_up_to: Option<Seq>,
    /// The `seq` from which the log is kept.
    pub horizon: Seq,
    /// The server's clock.
    pub server_time: Timestamp,
    /// What the server knows of the device that asked.
    pub device: Option<DeviceReport>,
    /// Who bears the token that asked; `None` from a server that does not say.
    pub token: Option<Bearer>,
    /// The scopes that the token holds.
    pub scopes: ScopeSet,
    /// What names the part of the space that it sees, to be sent with each question for the log; `None` from a server that
    /// knows no scopes.
    pub scope_set: Option<Box<str>>,
    /// The server's limits.
    pub limits: Limits,
}

/// A log that a restored one came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The earlier log.
    pub log: LogId,
    /// The last `seq` that both have in common.
    pub up_to: Seq,
}

/// The highest numbers that the server knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The epoch it last sent from.
    pub epoch: EpochId,
    /// The highest number decided in that epoch.
    pub device_seq: DeviceSeq,
    /// Of each sequence of the schema, the highest number in a record that the device made, whatever its epoch.
    pub sequences: BTreeMap<String, u64>,
}

impl Handshake {
    /// Reads a handshake.
    ///
    /// # Errors
    /// [`WireError`] when it is not what the protocol says, or speaks a version that this code does not.
    pub fn parse(text: &[u8]) -> Result<Self, WireError> {
        let (node, _) = parse(text, 16)?;
        let fields = Fields::of(&node)?;
        let protocol = fields.count("protocol")?;
        if protocol != PROTOCOL {
            let message = format!("the server speaks version {protocol} of the protocol, this device version {PROTOCOL}");
            return Err(WireError::new(message).within("protocol"));
        }
        Ok(Self {
            space: fields.id("space", |text| SpaceId::new(text))?,
            log: fields.id("log", |text| LogId::new(text))?,
            ancestors: each("ancestors", fields.optional_array("ancestors")?, ancestor)?,
            schema_version: fields.optional_count("schemaVersion")?.unwrap_or(0),
            head: Seq(fields.count("head")?),
            chain: Digest::from_hex(fields.text("chain")?).ok_or_else(|| WireError::new("is no SHA-256").within("chain"))?,
            agrees: fields.optional_flag("agrees")?,
            agrees_up_to: fields.optional_count("agreesUpTo")?.map(Seq),
            horizon: Seq(fields.optional_count("horizon")?.unwrap_or(0)),
            server_time: Timestamp::new(fields.text("serverTime")?)
                .map_err(|error| WireError::new(error.to_string()).within("serverTime"))?,
            device: fields.optional("device").map(device).transpose().map_err(|error| error.within("device"))?,
            token: fields.optional("token").map(Bearer::read).transpose().map_err(|error| error.within("token"))?,
            scopes: scopes(&fields)?,
            scope_set: fields.optional_text("scopeSet")?.map(Into::into),
            limits: limits(&fields)?,
        })
    }

    /// The answer in wire form.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"space\":");
        push_string(&mut out, self.space.as_str());
        push_count(&mut out, "protocol", PROTOCOL);
        push_text(&mut out, "log", self.log.as_str());
        let ancestors = self.ancestors.iter().map(|ancestor| {
            let mut out = String::from("{\"log\":");
            push_string(&mut out, ancestor.log.as_str());
            push_count(&mut out, "upTo", ancestor.up_to.0);
            out + "}"
        });
        out.push_str(&format!(",\"ancestors\":[{}]", ancestors.collect::<Vec<_>>().join(",")));
        push_count(&mut out, "schemaVersion", self.schema_version);
        push_count(&mut out, "head", self.head.0);
        push_text(&mut out, "chain", &self.chain.to_string());
        if let Some(agrees) = self.agrees {
            out.push_str(&format!(",\"agrees\":{agrees}"));
        }
        if let Some(up_to) = self.agrees_up_to {
            push_count(&mut out, "agreesUpTo", up_to.0);
        }
        push_count(&mut out, "horizon", self.horizon.0);
        push_text(&mut out, "serverTime", self.server_time.as_str());
        if let Some(device) = &self.device {
            out.push_str(",\"device\":{\"epoch\":");
            push_string(&mut out, device.epoch.as_str());
            push_count(&mut out, "deviceSeq", device.device_seq.0);
            out.push_str(",\"sequences\":{");
            for (index, (sequence, highest)) in device.sequences.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                push_string(&mut out, sequence);
                out.push_str(&format!(":{highest}"));
            }
            out.push_str("}}");
        }
        if let Some(token) = &self.token {
            out.push_str(",\"token\":");
            token.push(&mut out);
        }
        if let Some(scopes) = self.scopes.to_json() {
            out.push_str(&format!(",\"scopes\":{scopes}"));
        }
        if let Some(scope_set) = &self.scope_set {
            push_text(&mut out, "scopeSet", scope_set);
        }
        let Limits { batch_records, batch_bytes, request_bytes, group_records, group_bytes, payload_bytes } = self.limits;
        out.push_str(&format!(
            ",\"limits\":{{\"batchRecords\":{batch_records},\"batchBytes\":{batch_bytes},\"requestBytes\":{request_bytes},\
             \"groupRecords\":{group_records},\"groupBytes\":{group_bytes},\"payloadBytes\":{payload_bytes}}}}}"
        ));
        out
    }
}

fn ancestor(node: &Node<'_>) -> Read<Ancestor> {
    let fields = Fields::of(node)?;
    Ok(Ancestor { log: fields.id("log", |text| LogId::new(text))?, up_to: Seq(fields.count("upTo")?) })
}

fn device(node: &Node<'_>) -> Read<DeviceReport> {
    let fields = Fields::of(node)?;
    Ok(DeviceReport {
        epoch: fields.id("epoch", |text| EpochId::new(text))?,
        device_seq: DeviceSeq(fields.count("deviceSeq")?),
        sequences: sequences(&fields).map_err(|error| error.within("sequences"))?,
    })
}

fn sequences(fields: &Fields<'_, '_>) -> Read<BTreeMap<String, u64>> {
    let Some(node) = fields.optional("sequences") else { return Ok(BTreeMap::new()) };
    let Value::Object(members) = &node.value else { return Err(wrong(node, "an object")) };
    let highest = |(name, number): &(std::borrow::Cow<'_, str>, Node<'_>)| match number.as_count() {
        Some(highest) => Ok((name.to_string(), highest)),
        None => Err(wrong(number, "a count").within(name)),
    };
    members.iter().map(highest).collect()
}

fn scopes(fields: &Fields<'_, '_>) -> Read<ScopeSet> {
    if fields.optional("scopes").is_none() {
        return Ok(ScopeSet::All);
    }
    let scopes = each("scopes", fields.array("scopes")?, |item| id_item(item, |text| Scope::new(text)))?;
    Ok(ScopeSet::These(scopes.into_iter().collect()))
}

fn limits(fields: &Fields<'_, '_>) -> Read<Limits> {
    let Some(node) = fields.optional("limits") else { return Ok(Limits::default()) };
    let (fields, default) = (Fields::of(node)?, Limits::default());
    let limit = |name, default| match fields.optional_count(name)? {
        Some(0) => Err(WireError::new("must be above 0").within(name).within("limits")),
        limit => Ok(limit.unwrap_or(default)),
    };
    Ok(Limits {
        batch_records: limit("batchRecords", default.batch_records)?,
        batch_bytes: limit("batchBytes", default.batch_bytes)?,
        request_bytes: limit("requestBytes", default.request_bytes)?,
        group_records: limit("groupRecords", default.group_records)?,
        group_bytes: limit("groupBytes", default.group_bytes)?,
        payload_bytes: limit("payloadBytes", default.payload_bytes)?,
    })
}
