//! How long calls wait, which is no longer than the process does.

use std::time::Duration;

use dtc_core::Time;

use super::{Driver, locks};

impl Driver {
    /// Until when a call waits that comes now.
    pub(super) fn until(&self, wait: Duration) -> Time {
        self.clock.now() + if self.ends_waits { Duration::ZERO } else { wait }
    }

    pub(super) fn end_waits(&mut self) {
        self.ends_waits = true;
        self.machine.end_waits(self.clock.now(), &mut self.actions);
        // Those that wait for locks hear that the coordinator is being stopped.
        for (token, owner) in self.pending.give_up_locking() {
            self.handle(locks::given_up(token, owner));
        }
    }
}
