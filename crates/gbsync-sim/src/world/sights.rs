//! What must happen sometimes: every fault that a profile enables, and every way back from one. What never happens in a
//! thousand worlds is not tested by them.

use super::Profile;
use std::collections::BTreeMap;

/// Worlds of a run from which on it fails where something never happened that they enable.
const WORLDS: u64 = 1000;
/// And worlds of the profiles that enable it.
const ENABLED: u64 = 300;

/// What must happen in calm worlds and in all others.
const CALM: &[&str] = &[
    "a world without rules",
    "a world with rules",
    "a world of two spaces",
    "a world of seven devices or more",
    "an operation was saved",
    "an operation was saved by SQL",
    "an operation was saved in parts",
    "a save that failed",
    "an edit was staged across a pull",
    "a group was parked: conflict",
    "a group was parked: bound_violation",
    "a group was parked: duplicate_value",
    "a coupon was given away",
    "a code that is taken was refused",
    "a group was parked: dependency_rejected",
    "a group was amended",
    "a group was retried",
    "a group was discarded",
    "what waited for a parked group was sealed anew",
    "the office amended a group",
    "the office discarded a group",
    "the office compensated a group",
    "office and device decided about a group at once",
    "a shop was closed for a week",
    "a soft rule was flagged",
    "a part was sent",
    "a part was fetched",
    "a message overtook another",
    "a new device",
    "a bracket was left behind",
    "a stranger sent something",
    "a stranger broke an invariant",
    "a stranger left out a required field",
    "a stranger sent a value of the wrong type",
    "an app broke an invariant",
    "an app left out a required field",
    "an app wrote a value of the wrong type",
    "a captured operation that broke an invariant was parked",
    "a round that ended well",
    "the server was restored from a backup",
    "the server was rolled back by hand",
    "the server was rolled back and told so",
    "nobody came before healing was over",
    "a lost group was offered again",
    "a group that the log had lost came back",
    "a version of a lost log was translated",
    "a group was parked: base_lost",
    "an app was upgraded",
    "an app was upgraded with a full outbox",
    "the server got a newer schema",
    "the server got a schema that groups waited for",
    "a group of an older schema was accepted",
    "killed: the tables follow the schema",
    "a world of people who share devices",
    "somebody else signed in with a full outbox",
    "everybody signed out with a full outbox",
    "a token ended with a full outbox",
    "a token was revoked with a full outbox",
    "an expired token was refused",
    "a revoked token was refused",
    "a device asked for another token and went on",
    "everything waited for a sign-in",
    "a till sent what somebody else sealed",
    "a group was parked: not_permitted",
];

/// What must happen in rough worlds and in storms.
const ROUGH: &[&str] = &[
    "a request was lost",
    "an answer was lost after the commit",
    "a request arrived twice",
    "a message was delayed",
    "a copy of a request arrived late",
    "a device was closed and opened",
    "a request was cut",
    "an answer was cut",
    "a page of a hotel's network",
    "a proxy's error: 429",
    "a proxy's error: 500",
    "a proxy's error: 503",
    "a request for another space",
    "an answer of another space",
    "a round that failed",
    "a device was killed",
    "a device crashed in a round",
    "the server was killed",
    "killed: a group was sealed",
    "killed: groups were noted as in flight",
    "killed: verdicts arrived",
    "killed: verdicts were taken",
    "killed: a part leaves",
    "killed: a part was answered",
    "killed: a part of the log arrived",
    "killed: a page arrived",
    "killed: a page was applied",
    "killed: a transaction was decided",
    "killed: a transaction was committed",
    "killed: a discard was noted",
    "killed: rows are beside the tables",
    "killed: what was read anew shows",
];

/// What must happen in storms.
const STORM: &[&str] = &[
    "a device lost power: all",
    "a device lost power: prefix",
    "a device lost power: subset",
    "a device lost power: torn",
    "the server lost power: all",
    "the server lost power: prefix",
    "the server lost power: subset",
    "the server lost power: torn",
    "a device's disk was full",
    "a device's disk failed: write",
    "a device's disk failed: sync",
    "the server's disk was full",
    "the server's disk failed: write",
    "the server's disk failed: sync",
    "a device's disk stayed full",
    "the server's disk stayed full",
    "a device's disk failed: read",
    "the server's disk failed: read",
    "the server's clock went ten years ahead",
    "the server's clock went ten years back",
    "the server's clock stood still",
    "the server's clock was off",
    "the server's clock was set right",
    "a clock went ten years ahead",
    "a clock went ten years back",
    "a clock was off",
    "a clock stood still",
    "a clock was set right",
    "an old copy was put back",
    "an operation that SQL refused",
    "a device was cloned",
    "the server lost power while a schema came into force",
    "a device began another epoch",
    "the log was read anew",
    "killed: a page was read anew",
];

/// The places where a device may be killed, and what is seen then.
pub const DEVICE_POINTS: &[(&str, &str)] = &[
    ("a part leaves", "killed: a part leaves"),
    ("a part was answered", "killed: a part was answered"),
    ("a part of the log arrived", "killed: a part of the log arrived"),
    REBASE_POINTS[0],
    ("a discard was noted", "killed: a discard was noted"),
    ("a group was sealed", "killed: a group was sealed"),
    ("groups were noted as in flight", "killed: groups were noted as in flight"),
    ("verdicts arrived", "killed: verdicts arrived"),
    ("verdicts were taken", "killed: verdicts were taken"),
    ("a page arrived", "killed: a page arrived"),
    ("a page was applied", "killed: a page was applied"),
    ("the tables follow the schema", "killed: the tables follow the schema"),
];

/// How many of them few worlds come to: the first ones.
pub const RARE_POINTS: usize = 4;

/// The places of a device that reads the log anew. Where old rows are taken away later, which only large tables leave behind, the
/// client's own tests kill it.
pub const REBASE_POINTS: [(&str, &str); 3] = [
    ("a page was read anew", "killed: a page was read anew"),
    ("rows are beside the tables", "killed: rows are beside the tables"),
    ("what was read anew shows", "killed: what was read anew shows"),
];

/// The places where the server may be killed, and what is seen then.
pub const SERVER_POINTS: &[(&str, &str)] = &[
    ("a transaction was decided", "killed: a transaction was decided"),
    ("a transaction was committed", "killed: a transaction was committed"),
];

/// What never happened in any of the worlds that enable it, where there were enough of them.
pub fn missing(worlds: &BTreeMap<Profile, u64>, happened: &BTreeMap<(Profile, &'static str), u64>) -> Vec<&'static str> {
    let lists: [(&[&str], &[Profile]); 3] =
        [(CALM, &Profile::ALL), (ROUGH, &[Profile::Rough, Profile::Storm]), (STORM, &[Profile::Storm])];
    if worlds.values().sum::<u64>() < WORLDS {
        return Vec::new();
    }
    let never = |(list, profiles): (&[&'static str], &[Profile])| {
        let is_enough = profiles.iter().filter_map(|profile| worlds.get(profile)).sum::<u64>() >= ENABLED;
        let is_missing = |what: &&str| !profiles.iter().any(|profile| happened.contains_key(&(*profile, *what)));
        if is_enough { list.iter().copied().filter(is_missing).collect() } else { Vec::new() }
    };
    lists.into_iter().flat_map(never).collect()
}

#[cfg(test)]
mod tests {
    use super::{CALM, Profile, ROUGH, STORM, missing};
    use std::collections::BTreeMap;

    #[test]
    fn what_never_happened_is_asked_of_all_worlds_that_enable_it() {
        let worlds = BTreeMap::from([(Profile::Calm, 400), (Profile::Rough, 400), (Profile::Storm, 200)]);
        let mut happened: BTreeMap<_, u64> = CALM.iter().map(|what| ((Profile::Calm, *what), 1)).collect();
        assert_eq!(missing(&worlds, &happened), ROUGH, "too few storms to ask for what only they have");
        happened.extend(ROUGH.iter().map(|what| ((Profile::Storm, *what), 1)));
        assert!(missing(&worlds, &happened).is_empty());
        happened.remove(&(Profile::Calm, "a soft rule was flagged"));
        assert_eq!(missing(&worlds, &happened), ["a soft rule was flagged"]);
        assert!(missing(&BTreeMap::from([(Profile::Storm, 999)]), &BTreeMap::new()).is_empty(), "a short run");
        let storms = BTreeMap::from([(Profile::Storm, 1000)]);
        assert_eq!(missing(&storms, &BTreeMap::new()).len(), CALM.len() + ROUGH.len() + STORM.len());
    }
}
