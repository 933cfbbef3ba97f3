//! A stranger: somebody with a token and no gbsync, who sends what no device sends. None of it may take effect.

use super::World;
use crate::random::Random;
use anyhow::{Result, ensure};
use gbsync_core::digest::Digest;
use serde_json::{Value, json};

/// Changes that are refused wherever they are decided.
const REFUSED: &str = r#"[{"entity":"receipts","id":"nobody-made-it","action":"patch","payload":{"note":"x"}}]"#;

impl World {
    /// Sends something, and looks at the answer.
    pub(super) fn stranger(&mut self, random: &mut Random) -> Result<()> {
        self.note("a stranger sent something");
        match random.below(5) {
            0 => self.known_id_with_other_bytes(random),
            1 => self.key_twice(),
            2 => self.future_cursor(random),
            3 => self.number_of_another_group(random),
            _ => self.group_of_another_space(),
        }
    }

    /// P3: an id stands for the bytes that it was decided with.
    fn known_id_with_other_bytes(&mut self, random: &mut Random) -> Result<()> {
        let known: Vec<String> = self.models[0].log.iter().filter(|group| !group.is_empty()).cloned().collect();
        let Some(id) = known.get(random.below(known.len())) else { return Ok(()) };
        let body = push(("stranger", "stranger"), 1, id, REFUSED);
        let (status, answer) = self.send("POST", "shop", "push", Some(body))?;
        let code = answer["results"][0]["code"].as_str().unwrap_or_default();
        ensure!(status != 200 || code == "group_id_reused", "P3: other bytes under the id {id} were answered {answer}");
        Ok(())
    }

    /// P6: of a key that is there twice, two readers may take different values.
    fn key_twice(&mut self) -> Result<()> {
        self.made += 1;
        let id = format!("twice:twice:{}", self.made);
        let changes = r#"[{"entity":"receipts","id":"twice","action":"upsert","payload":{"a":"1","a":"2"}}]"#;
        let (status, answer) = self.send("POST", "shop", "push", Some(push(("stranger", "stranger"), 1, &id, changes)))?;
        ensure!(status >= 400, "P6: a key that is there twice was answered {status} {answer}");
        Ok(())
    }

    /// P6: who is beyond the end of the log has read another one.
    fn future_cursor(&mut self, random: &mut Random) -> Result<()> {
        let after = self.models[0].head() + 1 + random.below(9);
        let (status, answer) = self.send("GET", "shop", &format!("log?after={after}"), None)?;
        ensure!(status >= 400, "P6: the log after {after} of {} was answered {status} {answer}", self.models[0].head());
        Ok(())
    }

    /// P11: a number of an epoch is that of one group.
    fn number_of_another_group(&mut self, random: &mut Random) -> Result<()> {
        let numbers: Vec<_> = self.models[0].numbers.keys().filter(|(device, ..)| device != "server").cloned().collect();
        let Some((device, epoch, number)) = numbers.get(random.below(numbers.len())) else { return Ok(()) };
        self.made += 1;
        let id = format!("clone:clone:{}", self.made);
        let (status, answer) = self.send("POST", "shop", "push", Some(push((device, epoch), *number, &id, REFUSED)))?;
        ensure!(status >= 400, "P11: number {number} of {epoch} was taken for {id} too: {status} {answer}");
        Ok(())
    }

    /// P9: what was decided in one space is not known in another one.
    fn group_of_another_space(&mut self) -> Result<()> {
        self.made += 1;
        let id = format!("elsewhere:elsewhere:{}", self.made);
        let body = push(("stranger", "stranger"), self.made, &id, REFUSED);
        let (status, answer) = self.send("POST", "annex", "push", Some(body))?;
        if status != 200 {
            return Ok(());
        }
        ensure!(answer["results"][0]["status"] == "rejected", "P1: {id} was answered {answer}");
        let (status, answer) = self.send("POST", "shop", "verdicts", Some(json!({"ids": [id]}).to_string()))?;
        let verdict = answer["results"][0]["status"].as_str().unwrap_or_default();
        ensure!(status != 200 || verdict == "unknown", "P9: {id} of another space was answered {answer}");
        Ok(())
    }

    pub(super) fn send(&self, method: &str, space: &str, route: &str, body: Option<String>) -> Result<(u16, Value)> {
        let server = self.server()?;
        let token = if space == "annex" { &server.annex } else { &server.tokens[0].device };
        let path = format!("/v1/spaces/{space}/{route}");
        let body = body.map(String::into_bytes);
        // Nobody hears the answer of a server that dies.
        let Some(answer) = server.answer(&self.runtime, method, &path, token, body)? else { return Ok((503, Value::Null)) };
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }
}

/// A push of one group.
fn push((device, epoch): (&str, &str), number: u64, id: &str, changes: &str) -> String {
    let digest = Digest::of(changes.as_bytes());
    let count = 1;
    format!(
        r#"{{"device":{},"epoch":{},"groups":[{{"syncGroupId":{},"syncGroupType":null,"deviceSeq":{number},"createdAt":"2026-06-01T00:00:00.000Z","changeCount":{count},"digest":"{digest}","changes":{changes}}}]}}"#,
        json!(device),
        json!(epoch),
        json!(id)
    )
}
