//! What a person or a program may want to know of a device: where it stands, and every group that is not history yet.

use crate::client::Client;
use crate::error::{Error, damaged};
use crate::store::state::{self, LastError};
use crate::store::{base, outbox, sign_in};
use gbsync_core::change::Change;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, Seq};
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Rejection, Verdict};
use gbsync_core::wire::parse_result;
use rusqlite::{Connection, Row, params};
use std::collections::BTreeSet;

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This installation.
    pub device: DeviceId,
    /// This life of its database.
    pub epoch: EpochId,
    /// Its server and space.
    pub remote: crate::Remote,
    /// The `seq` up to which the log is applied.
    pub cursor: Seq,
    /// The last `seq` that the server was heard to have.
    pub head: Option<Seq>,
    /// The number of the last sealed group.
    pub sealed_through: DeviceSeq,
    /// Undecided groups, those in flight included.
    pub pending_groups: u64,
    /// Groups of the batch that is on its way.
    pub in_flight_groups: u64,
    /// Groups accepted that the cursor has not passed.
    pub accepted_groups: u64,
    /// Groups that wait for a person.
    pub parked_groups: u64,
    /// For whom undecided groups wait to sign in.
    pub waiting_for_sign_in: Vec<WaitsFor>,
    /// When the oldest undecided group was sealed.
    pub oldest_pending_at: Option<Timestamp>,
    /// When the next attempt is due after a failure.
    pub next_attempt_at: Option<Timestamp>,
    /// The last failure since the last success.
    pub last_error: Option<LastError>,
    /// Whether the queue stopped at something that waiting does not mend.
    pub is_stopped: bool,
}

/// Groups that wait until their author signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsFor {
    /// Their author; `None`: anybody.
    pub actor: Option<Actor>,
    /// How many.
    pub groups: u64,
    /// When the oldest of them was sealed.
    pub oldest_at: Timestamp,
}

/// What became of a group so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// Durable here, not sent.
    Sealed,
    /// On its way; the answer is awaited.
    InFlight,
    /// Waits until its actor is signed in.
    WaitingForSignIn,
    /// The server made it durable.
    Accepted,
    /// Refused, or a dependent of one that was; kept until somebody decides.
    Parked,
    /// Not sent any more: another group stands in its place.
    Replaced,
    /// Not sent any more: nobody wants it.
    Discarded,
    /// Not sent any more: another operation made up for it.
    Compensated,
    /// Not sent any more: later edits by others won.
    Superseded,
}

impl GroupState {
    const ALL: [Self; 9] = [
        Self::Sealed,
        Self::InFlight,
        Self::WaitingForSignIn,
        Self::Accepted,
        Self::Parked,
        Self::Replaced,
        Self::Discarded,
        Self::Compensated,
        Self::Superseded,
    ];

    /// Whether it is still to be sent, or its answer is awaited.
    pub(crate) fn is_undecided(self) -> bool {
        matches!(self, Self::Sealed | Self::InFlight | Self::WaitingForSignIn)
    }

    /// The word in `gbsync_group.state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::InFlight => "in_flight",
            Self::WaitingForSignIn => "waiting_for_sign_in",
            Self::Accepted => "accepted",
            Self::Parked => "parked",
            Self::Replaced => "replaced",
            Self::Discarded => "discarded",
            Self::Compensated => "compensated",
            Self::Superseded => "superseded",
        }
    }

    fn from_stored(word: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| damaged("gbsync_group.state", word))
    }
}

/// A group as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its id.
    pub group_id: GroupId,
    /// The kind of operation; `None` for a change made outside any.
    pub group_type: Option<GroupType>,
    /// What the operation was about.
    pub root: Option<String>,
    /// Who made it.
    pub actor: Option<Actor>,
    /// Its number on this device.
    pub device_seq: DeviceSeq,
    /// What became of it.
    pub state: GroupState,
    /// The stable code of a refusal or of what it waits for.
    pub code: Option<String>,
    /// The sentence that goes with it.
    pub message: Option<String>,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// When its verdict came.
    pub decided_at: Option<Timestamp>,
    /// How often it was sent.
    pub attempts: u32,
    /// Its changes.
    pub records: u64,
    /// Its place in the log.
    pub seq: Option<Seq>,
    /// The refused group that this one was sealed in the place of.
    pub replaces: Option<GroupId>,
    /// The group that stands in this one's place, or made up for it.
    pub replaced_by: Option<GroupId>,
    /// Who closed it, where that was a person who is known by name.
    pub closed_by: Option<Actor>,
    /// Why it was closed.
    pub reason: Option<String>,
    /// The server's result as it came: for a refusal, the changes at fault with the records as they are there.
    pub verdict: Option<String>,
}

impl GroupInfo {
    /// Why the server refused it, with the rule and the changes at fault; `None` where it was not refused by a verdict.
    pub fn rejection(&self) -> Option<Rejection> {
        match parse_result(self.verdict.as_deref()?.as_bytes()).ok()?.verdict {
            Verdict::Rejected { rejection, .. } => Some(rejection),
            _ => None,
        }
    }
}

/// Which groups to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupFilter {
    /// All that are still kept.
    All,
    /// Undecided ones.
    Pending,
    /// Parked ones.
    Parked,
}

/// The confirmed rows of a device at its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientDigest {
    /// The cursor.
    pub cursor: Seq,
    /// Live records.
    pub records: u64,
    /// Their digest: equal on every device and on the server at one cursor.
    pub digest: Digest,
}

const GROUP: &str =
    "SELECT x.group_id, x.type, x.root, x.actor, x.device_seq, g.state, x.code, x.message, x.sealed_at, x.decided_at,
        x.attempts, x.records, x.seq, x.verdict, g.replaces, g.replaced_by, g.closed_by, g.reason
   FROM gbsync_outbox AS x JOIN gbsync_group AS g ON g.group_id = x.group_id";

impl Client {
    /// Where the device stands.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn status(&self) -> Result<Status, Error> {
        self.complete_captured()?;
        let mut reader = self.store().reader();
        let tx = reader.transaction()?;
        let state = state::read(&tx)?;
        let (pending_groups, oldest) = outbox::pending(&tx)?;
        let (parked_groups, accepted_groups) = outbox::parked_and_unpassed(&tx)?;
        let waits_for = |(actor, groups, oldest)| WaitsFor { actor, groups, oldest_at: Timestamp::from_unix_ms(oldest) };
        let waiting_for_sign_in = sign_in::waiting(&tx)?.into_iter().map(waits_for).collect();
        Ok(Status {
            cursor: state.cursor,
            head: state.head,
            sealed_through: DeviceSeq(outbox::next_group(&tx)?.device_seq.0 - 1),
            pending_groups,
            in_flight_groups: state::in_flight(&tx)?.len() as u64,
            accepted_groups,
            parked_groups,
            waiting_for_sign_in,
            oldest_pending_at: oldest.map(Timestamp::from_unix_ms),
            next_attempt_at: state.next_attempt_at.map(Timestamp::from_unix_ms),
            last_error: state.error,
            is_stopped: state.is_stopped,
            device: state.device,
            epoch: state.epoch,
            remote: crate::Remote { server: state.server, space: state.space },
        })
    }

    /// Groups in seal order, at most `limit`.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn groups(&self, filter: GroupFilter, limit: usize) -> Result<Vec<GroupInfo>, Error> {
        self.complete_captured()?;
        let of = match filter {
            GroupFilter::All => "",
            GroupFilter::Pending => {
                "WHERE x.state IN ('sealed', 'waiting_for_sign_in') AND x.local_no >= (SELECT pending_from FROM gbsync_state)"
            }
            GroupFilter::Parked => "WHERE x.state = 'parked'",
        };
        let sql = format!("{GROUP} {of} ORDER BY x.local_no LIMIT ?1");
        select(&self.store().reader(), &sql, params![i64::try_from(limit).unwrap_or(i64::MAX)])
    }

    /// One group, if it is still kept.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn group(&self, id: &GroupId) -> Result<Option<GroupInfo>, Error> {
        let found = select(&self.store().reader(), &format!("{GROUP} WHERE x.group_id = ?1"), params![id.as_str()])?;
        Ok(found.into_iter().next())
    }

    pub(crate) fn infos(&self, local_nos: &BTreeSet<i64>) -> Result<Vec<GroupInfo>, Error> {
        let writer = self.store().writer();
        let mut infos = Vec::with_capacity(local_nos.len());
        for local_no in local_nos {
            infos.extend(select(&writer, &format!("{GROUP} WHERE x.local_no = ?1"), params![local_no])?);
        }
        Ok(infos)
    }

    /// The changes of a group, as sealed; empty when the group is not kept.
    ///
    /// # Errors
    /// [`Error`] when the database fails or what is stored is damaged.
    pub fn changes_of(&self, id: &GroupId) -> Result<Vec<Change>, Error> {
        let reader = self.store().reader();
        match outbox::standing(&reader, id)? {
            Some(standing) => outbox::changes_of(&reader, standing.local_no),
            None => Ok(Vec::new()),
        }
    }

    /// Cursor, count and digest of the confirmed rows, all of one moment.
    ///
    /// # Errors
    /// [`Error`] when the database fails.
    pub fn digest(&self) -> Result<ClientDigest, Error> {
        let mut reader = self.store().reader();
        let tx = reader.transaction()?;
        let cursor = state::read(&tx)?.cursor;
        let (records, digest) = base::digest(&tx)?;
        Ok(ClientDigest { cursor, records, digest })
    }
}

fn select(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<GroupInfo>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut infos = Vec::new();
    while let Some(row) = rows.next()? {
        infos.push(info(row)?);
    }
    Ok(infos)
}

fn info(row: &Row<'_>) -> Result<GroupInfo, Error> {
    let about = |error| damaged("gbsync_outbox", error);
    let (group_type, actor): (Option<Box<str>>, Option<Box<str>>) = (row.get(1)?, row.get(3)?);
    let state: String = row.get(5)?;
    let group = |index| -> Result<Option<GroupId>, Error> {
        row.get::<_, Option<Box<str>>>(index)?.map(GroupId::new).transpose().map_err(about)
    };
    Ok(GroupInfo {
        group_id: GroupId::new(row.get::<_, Box<str>>(0)?).map_err(about)?,
        group_type: group_type.map(GroupType::new).transpose().map_err(about)?,
        root: row.get(2)?,
        actor: actor.map(Actor::new).transpose().map_err(about)?,
        device_seq: DeviceSeq(row.get(4)?),
        state: GroupState::from_stored(&state)?,
        code: row.get(6)?,
        message: row.get(7)?,
        sealed_at: Timestamp::from_unix_ms(row.get(8)?),
        decided_at: row.get::<_, Option<u64>>(9)?.map(Timestamp::from_unix_ms),
        attempts: row.get(10)?,
        records: row.get(11)?,
        seq: row.get::<_, Option<u64>>(12)?.map(Seq),
        verdict: row.get(13)?,
        replaces: group(14)?,
        replaced_by: group(15)?,
        closed_by: row.get::<_, Option<Box<str>>>(16)?.map(Actor::new).transpose().map_err(about)?,
        reason: row.get(17)?,
    })
}
