//! The back office: somebody with the role `admin` who looks at rejections and closes them, at the same time as the devices.

use super::{SPACES, World, violation};
use crate::action;
use crate::model::{Author, Change, Edit, Operation};
use crate::names;
use crate::random::Random;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

impl World {
    /// Looks at the open rejections and decides one.
    pub(super) fn office(&mut self, random: &mut Random) -> Result<()> {
        let space = random.below(self.models.len());
        let (status, answer) = self.ask_office(space, "GET", "rejections?state=open", None)?;
        // The disk under the server may just have failed.
        if status != 200 {
            return Ok(());
        }
        let rejections = answer["rejections"].as_array().into_iter().flatten();
        let rejections = rejections.filter(|rejection| !violation::is_of_a_stranger(rejection));
        let open: Vec<&str> = rejections.filter_map(|rejection| rejection["syncGroupId"].as_str()).collect();
        let Some(id) = open.get(random.below(open.len())).map(|id| (*id).to_owned()) else { return Ok(()) };
        let Some(operation) = self.models[space].operation(&id).cloned() else {
            anyhow::bail!("P7: nobody made the rejected {id}")
        };
        let reason = "the office decides";
        let way = random.below(3);
        let (verb, body, what) = match way {
            0 => ("discard", json!({"reason": reason}), "the office discarded a group"),
            1 => {
                // What the office wanted once is wanted again when nobody knows whether it took effect.
                let amended = names::written(action::amended(&operation), self.server()?.version());
                self.models[space].amended.insert((id.clone(), Author::Office), amended.clone());
                (
                    "amend",
                    json!({"reason": reason, "root": operation.token, "changes": wire(&amended)}),
                    "the office amended a group",
                )
            }
            _ => {
                self.made += 1;
                let token = format!("c{}", self.made);
                let making_up = action::making_up(&token);
                self.models[space].operations.insert(token.clone(), making_up.clone());
                let body = json!({"type": "making-up", "root": token, "reason": reason, "changes": wire(&making_up)});
                ("compensate", body, "the office compensated a group")
            }
        };
        let path = format!("rejections/{}/{verb}", id.replace(':', "%3A"));
        let (status, answer) = self.ask_office(space, "POST", &path, Some(body))?;
        ensure!(matches!(status, 200 | 409 | 503), "P9: the office was answered {status}: {answer}");
        if status == 200 && !answer["resolution"].is_null() {
            self.note(what);
        }
        self.say(format!("  the office: {verb} {}: {status}", operation.token));
        if random.below(2) == 0 { self.amend_on_a_device(&id, &operation) } else { Ok(()) }
    }

    /// Somebody at a device amends what the office decides about at the same moment.
    fn amend_on_a_device(&mut self, id: &str, operation: &Operation) -> Result<()> {
        for place in 0..self.devices.len() {
            let client = self.devices[place].client()?.clone();
            let Some(parked) = client.parked()?.into_iter().find(|parked| parked.group.group_id.as_str() == id) else {
                continue;
            };
            let amended = names::written(action::amended(operation), self.devices[place].version());
            let space = self.devices[place].space;
            self.models[space].amended.insert((id.to_owned(), Author::Device(place)), amended.clone());
            self.decided.insert((place, id.to_owned()));
            let closed = client.amend(&parked.group.group_id, |context| action::stage(context, &amended.changes));
            if closed.is_ok() {
                self.note("office and device decided about a group at once");
                self.say(format!("  device {place}: {}, closed", operation.token));
            }
        }
        Ok(())
    }

    /// Asks with the office's own token. Nobody hears the answer of a server that dies: 503.
    fn ask_office(&self, space: usize, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let server = self.server()?;
        let body = body.map(|body| body.to_string().into_bytes());
        let path = format!("/v1/spaces/{}/{path}", SPACES[space]);
        let answer = server.answer(&self.runtime, method, &path, &server.tokens[space].admin, body)?;
        let Some(answer) = answer else { return Ok((503, Value::Null)) };
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }
}

/// Changes in the form of an operations file.
pub(super) fn wire(operation: &Operation) -> Value {
    let change = |Change { key: (entity, id), edit }: &Change| {
        let (action, payload) = match edit {
            Edit::Put(fields) => ("upsert", Value::from(fields.clone())),
            Edit::Set(fields) => ("patch", Value::from(fields.clone())),
            Edit::Add(field, delta) => ("increment", json!({*field: delta})),
            Edit::Delete => return json!({"entity": entity, "id": id, "action": "delete"}),
        };
        json!({"entity": entity, "id": id, "action": action, "payload": payload})
    };
    operation.changes.iter().map(change).collect()
}
