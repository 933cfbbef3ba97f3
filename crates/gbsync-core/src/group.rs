//! A sealed group: the changes of one operation, whole, with the bytes that stand for it for ever.
//!
//! Invariant: a [`Group`] in memory has at least one change, keeps the limits, and its digest is that of its bytes.

use crate::change::{Change, Edit};
use crate::clock::Hlc;
use crate::digest::Digest;
use crate::id::{Actor, DeviceSeq, GroupId, GroupType, LogId};
use crate::limits::{DEPENDENCIES, Limits};
use crate::time::Timestamp;

/// What a group says of itself beside its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its id.
    pub id: GroupId,
    /// The kind of operation; `None` for a change made outside any.
    pub group_type: Option<GroupType>,
    /// Its number on its device and epoch.
    pub device_seq: DeviceSeq,
    /// Who made it; the token's subject when absent.
    pub actor: Option<Actor>,
    /// When its maker's clock says it was made. Never judged.
    pub created_at: Timestamp,
    /// The version of the schema it was made under; 0 without one.
    pub schema_version: u64,
    /// The groups that must have taken effect before it.
    pub depends_on: Vec<GroupId>,
    /// The rejected group that it is sent instead of.
    pub replaces: Option<GroupId>,
    /// The first of the groups that it stands for, where `replaces` itself replaced others: a server that lost what was between
    /// still knows which operation this is.
    pub family: Option<GroupId>,
    /// The log that its base versions belong to; the current one when absent.
    pub log: Option<LogId>,
    /// The clock of its maker; it may be stamped anew, for it is not among the bytes of the changes.
    pub hlc: Option<Hlc>,
    /// The flags that it clears: `{seq}.{place}` each.
    pub clears: Vec<Box<str>>,
}

impl Header {
    /// The groups that it is sent instead of, as far as it names them.
    pub fn stands_for(&self) -> impl Iterator<Item = &GroupId> {
        self.replaces.iter().chain(&self.family)
    }
}

/// Why changes are no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGroup {
    /// There is no change in it.
    #[error("the group has no change")]
    Empty,
    /// Too many changes.
    #[error("the group has {records} changes, over the limit of {limit}")]
    TooManyRecords {
        /// Changes it has.
        records: u64,
        /// Changes it may have.
        limit: u64,
    },
    /// Too many bytes of changes.
    #[error("the group's changes have {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes it has.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// It waits for itself.
    #[error("the group depends on itself")]
    DependsOnItself,
    /// It waits for too many.
    #[error("the group depends on {0} groups, over the limit of {DEPENDENCIES}")]
    TooManyDependencies(usize),
    /// A base that the group does not wait for.
    #[error("change {index}: the base group {group} is not listed in dependsOn")]
    BaseNotListed {
        /// Place of the change in the group.
        index: usize,
        /// The base group.
        group: GroupId,
    },
    /// It replaces itself.
    #[error("the group replaces itself")]
    ReplacesItself,
    /// A family without a group that it replaces.
    #[error("the group names a family and replaces nothing; leave family out, or say what it replaces")]
    FamilyOfNothing,
}

/// A sealed group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    header: Header,
    changes: Vec<Change>,
    changes_json: Box<str>,
    digest: Digest,
}

impl Group {
    /// Seals changes: writes their bytes once and digests them.
    ///
    /// # Errors
    /// [`InvalidGroup`] says what is wrong; nothing is sealed then.
    ///
    /// ```
    /// use gbsync_core::{change::*, group::*, id::*, limits::Limits, time::Timestamp};
    /// let limits = Limits::default();
    /// let payload = Payload::parse(r#"{"total":"120.00"}"#, &limits).unwrap();
    /// let key = RecordKey::new("receipts", "receipt-001").unwrap();
    /// let change = Change::new(key, Edit::Upsert(payload), Base::default()).unwrap();
    /// let header = Header {
    ///     id: GroupId::new("receipt-create:receipt-001:1").unwrap(), group_type: None, device_seq: DeviceSeq(1), actor: None,
    ///     created_at: Timestamp::from_unix_ms(0), schema_version: 0, depends_on: vec![], replaces: None, family: None, log: None, hlc: None,
    ///     clears: vec![],
    /// };
    /// let group = Group::seal(header, vec![change], &limits).unwrap();
    /// assert_eq!(group.digest().to_string().len(), 64);
    /// ```
    pub fn seal(header: Header, changes: Vec<Change>, limits: &Limits) -> Result<Self, InvalidGroup> {
        let mut json = String::from("[");
        for (index, change) in changes.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            change.push_json(&mut json);
        }
        json.push(']');
        let digest = Digest::of(json.as_bytes());
        Self::checked(header, changes, json.into(), digest, limits)
    }

    /// Takes a group whose bytes already exist: one that arrived, or one that was stored. `digest` must be that of
    /// `changes_json`, and `changes` what it says.
    ///
    /// # Errors
    /// [`InvalidGroup`] says what is wrong.
    pub fn checked(
        header: Header,
        changes: Vec<Change>,
        changes_json: Box<str>,
        digest: Digest,
        limits: &Limits,
    ) -> Result<Self, InvalidGroup> {
        check_header(&header, &changes)?;
        let (records, bytes) = (changes.len() as u64, changes_json.len() as u64);
        if records > limits.group_records {
            return Err(InvalidGroup::TooManyRecords { records, limit: limits.group_records });
        }
        if bytes > limits.group_bytes {
            return Err(InvalidGroup::TooLarge { bytes, limit: limits.group_bytes });
        }
        Ok(Self { header, changes, changes_json, digest })
    }

    /// What the group says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its id.
    pub fn id(&self) -> &GroupId {
        &self.header.id
    }

    /// Its changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The bytes of its changes: the same in every attempt, for ever.
    pub fn changes_json(&self) -> &str {
        &self.changes_json
    }

    /// SHA-256 of [`Self::changes_json`].
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The rules that need no limits: what makes a group that arrives malformed.
pub(crate) fn check_header(header: &Header, changes: &[Change]) -> Result<(), InvalidGroup> {
    if changes.is_empty() {
        return Err(InvalidGroup::Empty);
    }
    check_names(header)?;
    for (index, Change { base, edit, .. }) in changes.iter().enumerate() {
        let Some(group) = base.group.as_ref().filter(|_| !matches!(edit, Edit::Increment(_))) else { continue };
        if !header.depends_on.contains(group) {
            return Err(InvalidGroup::BaseNotListed { index, group: group.clone() });
        }
    }
    Ok(())
}

/// Those of them that need no changes.
pub(crate) fn check_names(header: &Header) -> Result<(), InvalidGroup> {
    if header.depends_on.len() > DEPENDENCIES {
        return Err(InvalidGroup::TooManyDependencies(header.depends_on.len()));
    }
    if header.depends_on.contains(&header.id) {
        return Err(InvalidGroup::DependsOnItself);
    }
    if [&header.replaces, &header.family].into_iter().flatten().any(|id| *id == header.id) {
        return Err(InvalidGroup::ReplacesItself);
    }
    if header.family.is_some() && header.replaces.is_none() {
        return Err(InvalidGroup::FamilyOfNothing);
    }
    Ok(())
}
