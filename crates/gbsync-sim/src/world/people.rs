//! What people in front of devices do: they write operations in one go, in pieces or by SQL, and decide what was refused.

use super::World;
use super::device::Staged;
use super::event::Event;
use crate::action;
use crate::model::{Author, Operation, State};
use crate::names;
use crate::random::Random;
use anyhow::Result;

impl World {
    /// Somebody writes an operation.
    pub(super) fn write(&mut self, place: usize, schedule: &mut Random, workload: &mut Random) -> Result<()> {
        let operation = self.draw(place, workload)?;
        match self.schema.is_some() && schedule.below(3) == 0 {
            true => self.save_by_sql(place, operation, schedule.below(8) > 0),
            false => self.save(place, operation),
        }
    }

    fn draw(&mut self, place: usize, workload: &mut Random) -> Result<Operation> {
        self.made += 1;
        let token = format!("t{}", self.made);
        let view = self.view(place)?;
        let operation = action::next(&token, &view, workload);
        let operation = names::written_on_the_web(operation, self.devices[place].version());
        let space = self.devices[place].space;
        if let Some(staff) = &mut self.staff {
            staff.begins(&operation.token, self.devices[place].badge.as_ref().map(|badge| badge.person));
        }
        self.models[space].begun(&operation, &view);
        Ok(operation)
    }

    /// Saves an operation on a device with plain SQL, or leaves its bracket behind.
    pub(super) fn save_by_sql(&mut self, place: usize, operation: Operation, is_closed: bool) -> Result<()> {
        let token = operation.token.clone();
        self.expect(place, &operation);
        let device = &mut self.devices[place];
        if !is_closed {
            self.models[device.space].abandoned.insert(token.clone());
        }
        let actor = device.badge.as_ref().map(|badge| badge.person);
        match action::write_sql(device.app()?, &operation, actor, is_closed) {
            Ok(()) => {
                device.saved.push(token.clone());
                self.note(if is_closed { "an operation was saved by SQL" } else { "a bracket was left behind" });
                self.say(format!("  device {place} saved {token} ({}) by SQL", operation.kind));
            }
            Err(_) => {
                self.note("an operation that SQL refused");
                self.say(format!("  device {place} could not save {token} by SQL"));
            }
        }
        Ok(())
    }

    /// Saves an operation on a device.
    pub(super) fn save(&mut self, place: usize, operation: Operation) -> Result<()> {
        self.expect(place, &operation);
        let device = &self.devices[place];
        let client = device.client()?.clone();
        let saved = device.mortal.live(&device.folder, || action::write(&client, &operation));
        self.saved(place, &operation, saved);
        Ok(())
    }

    /// Opens an operation and stages it, or seals the one that is open.
    pub(super) fn stage(&mut self, place: usize, workload: &mut Random) -> Result<()> {
        let Some(staged) = self.devices[place].staged.take() else { return self.open_operation(place, workload) };
        let device = &self.devices[place];
        let client = device.client()?.clone();
        let operation = staged.operation.clone();
        if client.status()?.cursor.0 > staged.cursor {
            self.note("an edit was staged across a pull");
        }
        self.expect(place, &operation);
        let device = &self.devices[place];
        let saved = device.mortal.live(&device.folder, || staged.context.seal().map(drop));
        self.saved(place, &operation, saved);
        Ok(())
    }

    fn open_operation(&mut self, place: usize, workload: &mut Random) -> Result<()> {
        let operation = self.draw(place, workload)?;
        let device = &mut self.devices[place];
        let client = device.client()?.clone();
        let cursor = client.status()?.cursor.0;
        let mut context = client.begin(operation.kind, &operation.token)?;
        if action::stage(&mut context, &operation.changes).is_ok() {
            device.staged = Some(Staged { context, operation, cursor });
        }
        Ok(())
    }

    fn expect(&mut self, place: usize, operation: &Operation) {
        let space = self.devices[place].space;
        if let Some(staff) = &mut self.staff {
            staff.begins(&operation.token, self.devices[place].badge.as_ref().map(|badge| badge.person));
        }
        self.models[space].operations.insert(operation.token.clone(), operation.clone());
    }

    fn saved(&mut self, place: usize, operation: &Operation, saved: Option<Result<(), gbsync_client::Error>>) {
        let token = operation.token.clone();
        match saved {
            Some(Ok(())) => {
                self.devices[place].saved.push(token.clone());
                self.note("an operation was saved");
                if operation.kind == "large" {
                    self.note("an operation was saved in parts");
                }
                self.say(format!("  device {place} saved {token} ({})", operation.kind));
            }
            Some(Err(error)) => {
                self.note("a save that failed");
                self.say(format!("  device {place} could not save {token}: {}", error.code()));
            }
            None => self.say(format!("  device {place} died while it saved {token}")),
        }
    }

    /// What a device shows, for somebody who looks at it.
    pub(super) fn view(&self, place: usize) -> Result<State> {
        let rows = self.devices[place].client()?.with_reader(|db| {
            let mut statement = db.prepare_cached("SELECT entity, id, payload FROM gbsync_records")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, String, String)>>>()
        })?;
        let mut state = State::new(self.schema.is_some());
        for (entity, id, payload) in rows {
            state.put(&entity, &id, names::renewed(&entity, &serde_json::from_str(&payload)?));
        }
        Ok(state)
    }

    /// The first device from this one on that has a parked group.
    fn who_has_parked(&self, from: usize) -> Result<Option<usize>> {
        for place in (from..self.devices.len()).chain(0..from) {
            let parked = self.devices[place].client()?.with_reader(|db| {
                let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_outbox WHERE state = 'parked')";
                db.prepare_cached(sql)?.query_row([], |row| row.get::<_, bool>(0))
            })?;
            if parked {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// A person looks at a parked group and decides.
    pub(super) fn close_parked(&mut self, event: Event, place: usize, schedule: &mut Random) -> Result<()> {
        let Some(place) = self.who_has_parked(place)? else { return Ok(()) };
        let device = &self.devices[place];
        let (client, space) = (device.client()?.clone(), device.space);
        let parked = client.parked()?;
        // Most often the oldest: others may wait for it.
        let chosen = schedule.below(2) * schedule.below(parked.len());
        let Some(group) = parked.get(chosen) else { return Ok(()) };
        let id = &group.group.group_id;
        let Some(operation) = self.models[space].operation(id.as_str()).cloned() else {
            anyhow::bail!("P7: nobody made the parked {id}")
        };
        // What a person wanted once is wanted again when nobody knows whether it was saved.
        let wanted = (id.to_string(), Author::Device(place));
        let is_amended = self.models[space].amended.contains_key(&wanted);
        self.decided.insert((place, id.to_string()));
        let amended = names::written(action::amended(&operation), device.version());
        let (what, closed) = match event {
            Event::Discard if !is_amended => {
                let discard = || client.discard(id, "nobody wants it any more");
                ("a group was discarded", device.mortal.live(&device.folder, discard))
            }
            Event::Retry if !is_amended => {
                let retry = || client.retry(id).map(drop);
                ("a group was retried", device.mortal.live(&device.folder, retry))
            }
            _ => {
                self.models[space].amended.insert(wanted, amended.clone());
                let amend = || client.amend(id, |context| action::stage(context, &amended.changes)).map(drop);
                ("a group was amended", device.mortal.live(&device.folder, amend))
            }
        };
        let is_closed = matches!(closed, Some(Ok(())));
        if is_closed {
            self.note(what);
        }
        let word = if is_closed { "closed" } else { "still parked" };
        self.say(format!("  device {place}: {}, {word}", operation.token));
        Ok(())
    }
}
