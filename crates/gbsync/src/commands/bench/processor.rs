//! How long processors worked, which other programs on the same machine disturb less than how long something took.

use std::path::Path;

/// Ticks of the kernel in a second, as Linux tells them to programs.
const TICKS_PER_S: f64 = 100.0;

/// Milliseconds that processors have worked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Worked {
    /// For this process: devices and server.
    pub(super) here_ms: f64,
    /// For PostgreSQL: the process with this id, its children, and those that ended.
    pub(super) database_ms: f64,
}

impl Worked {
    /// Up to now; `None` where the system does not tell.
    pub(super) fn until_now(postmaster: &str) -> Option<Self> {
        let here = Ticks::of("self")?;
        let of_database = Ticks::of(postmaster)?;
        let mut ticks = of_database.own + of_database.of_ended;
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let child = Ticks::of(&entry.file_name().to_string_lossy()).filter(|ticks| ticks.parent == postmaster);
            ticks += child.map_or(0.0, |child| child.own);
        }
        let ms = |ticks: f64| ticks * 1000.0 / TICKS_PER_S;
        Some(Self { here_ms: ms(here.own), database_ms: ms(ticks) })
    }

    /// What came since `before`, each of so many times.
    pub(super) fn each(self, before: Self, times: f64) -> Self {
        Self {
            here_ms: (self.here_ms - before.here_ms) / times,
            database_ms: (self.database_ms - before.database_ms) / times,
        }
    }

    /// All of it.
    pub(super) fn total_ms(self) -> f64 {
        self.here_ms + self.database_ms
    }
}

/// What the kernel counted of a process.
struct Ticks {
    parent: String,
    own: f64,
    /// Of children that ended and were waited for.
    of_ended: f64,
}

impl Ticks {
    fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, and from the twelfth on the ticks.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<f64>().ok();
        Some(Self {
            parent: (*fields.get(1)?).to_owned(),
            own: number(11)? + number(12)?,
            of_ended: number(13)? + number(14)?,
        })
    }
}
