//! A script that withholds some answers until a test lets them go.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use super::{FakeParticipant, Heard, Reply, agree};

/// Withholds the answers to some messages until it is opened; agrees to the others.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Replaces the participant's script; `held` are the messages that get no answer.
    pub fn before(participant: &FakeParticipant, held: fn(&Heard) -> bool) -> Self {
        let gate = Self::default();
        let open = Arc::clone(&gate.0);
        participant.set_script(move |heard| match held(heard) && !open.load(SeqCst) {
            true => Reply::Silence,
            false => agree(heard),
        });
        gate
    }

    /// Attempts from now on are answered.
    pub fn open(&self) {
        self.0.store(true, SeqCst);
    }
}
