//! What may happen in a step, and how often in worlds of each kind.

use crate::random::Random;

/// How hard a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// Requests are delivered in any order; nothing is lost.
    Calm,
    /// Requests and answers are lost, doubled, delayed, cut and exchanged; processes are killed.
    Rough,
    /// And power is lost in the middle of a write, disks are full, clocks jump, files are copied and put back.
    Storm,
}

impl Profile {
    /// All of them, each harder than the one before.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Rough, Self::Storm];
}

impl std::fmt::Display for Profile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Calm => "calm",
            Self::Rough => "rough",
            Self::Storm => "storm",
        })
    }
}

/// What happens in a step; the server's past is not among it (`lineage`), and neither is who is signed in (`shift`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Save,
    Stage,
    Stranger,
    Retry,
    Amend,
    Discard,
    Office,
    Sync,
    Deliver,
    DropRequest,
    DropAnswer,
    DoubleRequest,
    Delay,
    CutAnswer,
    Html,
    Status(u16),
    WrongSpace,
    WrongAnswer,
    Pass,
    KillDevice,
    KillServer,
    KillDeviceAtPoint,
    KillServerAtPoint,
    PowerDevice,
    PowerServer,
    DiskDevice,
    DiskServer,
    Clock,
    NewDevice,
    Backup,
    Restore,
    Clone,
    UpgradeApp,
    UpgradeServer,
}

const CALM: &[(usize, Event)] = &[
    (40, Event::Save),
    (8, Event::Stage),
    (8, Event::Retry),
    (10, Event::Amend),
    (5, Event::Discard),
    (2, Event::Stranger),
    (12, Event::Office),
    (16, Event::Sync),
    (60, Event::Deliver),
    (6, Event::Pass),
    (1, Event::NewDevice),
    (1, Event::UpgradeApp),
    (1, Event::UpgradeServer),
];

const ROUGH: &[(usize, Event)] = &[
    // Among so much else people would hardly ever come to decide anything.
    (24, Event::Office),
    (8, Event::Amend),
    (8, Event::Retry),
    (6, Event::Sync),
    (20, Event::Deliver),
    (3, Event::DropRequest),
    (16, Event::DropAnswer),
    (3, Event::DoubleRequest),
    (3, Event::Delay),
    (3, Event::CutAnswer),
    (2, Event::Html),
    (1, Event::Status(429)),
    (1, Event::Status(500)),
    (1, Event::Status(503)),
    (2, Event::WrongSpace),
    (6, Event::WrongAnswer),
    (2, Event::KillDevice),
    (2, Event::KillServer),
    (10, Event::KillDeviceAtPoint),
    (2, Event::KillServerAtPoint),
];

const STORM: &[(usize, Event)] = &[
    (4, Event::PowerDevice),
    (4, Event::PowerServer),
    (2, Event::DiskDevice),
    (2, Event::DiskServer),
    (2, Event::Clock),
    (3, Event::Backup),
    (3, Event::Restore),
    (1, Event::Clone),
];

impl Event {
    pub(super) fn draw(profile: Profile, random: &mut Random) -> Self {
        let tables: &[&[(usize, Self)]] = match profile {
            Profile::Calm => &[CALM],
            Profile::Rough => &[CALM, ROUGH],
            Profile::Storm => &[CALM, ROUGH, STORM],
        };
        let events = || tables.iter().flat_map(|table| table.iter());
        let mut drawn = random.below(events().map(|(weight, _)| weight).sum());
        for (weight, event) in events() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return *event,
            }
        }
        Self::Save
    }
}
