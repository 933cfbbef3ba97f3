//! Named places where a simulator may kill a party: between two things of which the first is done and the second is not.
//!
//! Compiled to nothing without the feature `fault-points`. With it, a place calls the hook of its thread, if there is one; a hook
//! that kills never returns, but unwinds. What is a write of a disk is no place here: a simulator's disk fails by itself.
//!
//! ```
//! gbsync_core::fault::point("a page of the log arrived");
//! ```

#[cfg(feature = "fault-points")]
pub use hooks::{Hook, hook, with_hook};

/// A place where a party may die.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// A place where a party may die.
#[cfg(feature = "fault-points")]
pub fn point(name: &'static str) {
    if let Some(hook) = hook() {
        hook(name);
    }
}

#[cfg(feature = "fault-points")]
mod hooks {
    use std::cell::RefCell;
    use std::sync::Arc;

    /// What is called at each place, with its name.
    pub type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// The hook of this thread, for one that is started on its behalf.
    #[must_use]
    pub fn hook() -> Option<Hook> {
        HOOK.with(|kept| kept.borrow().clone())
    }

    /// Runs `run` with a hook on this thread, and puts the one before back, also when `run` unwinds.
    pub fn with_hook<T>(hook: Option<Hook>, run: impl FnOnce() -> T) -> T {
        struct Back(Option<Hook>);
        impl Drop for Back {
            fn drop(&mut self) {
                HOOK.with(|kept| *kept.borrow_mut() = self.0.take());
            }
        }
        let _back = Back(HOOK.with(|kept| kept.replace(hook)));
        run()
    }
}
