//! The disk: everything SQLite writes, in order, and what a loss of power leaves of it.
//!
//! SQLite runs on real files through a virtual file system that notes each write, truncation, sync and deletion before it
//! passes it on. From that journal the files can be made as they are after a crash at any moment, with any part of what was
//! not synced lost, torn or out of order.
//!
//! Rejected alternative: a file system in memory. Client and server look at their files with the system's own calls too.

mod folder;
mod image;
mod journal;
mod memory;
mod vfs;

pub use folder::{
    Failure, changes, cut_after, errors, fail_next, fail_read, fill, forget, heal, is_cut, is_full, record, relieve, take,
    take_failure, tell, write_image,
};
pub use image::{Images, Loss};
pub use journal::{Journal, Mark};
pub use vfs::{install, wait_until_closed};
